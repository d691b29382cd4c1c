"""Run one RunSpec without Ray: ``python -m workers run.json --store ./store``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from sweeps.errors import UserError
from sweeps.results.store import Store
from sweeps.spec import RunSpec


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("spec", help="a RunSpec as JSON: run.json, or one of resolved.json's runs")
    parser.add_argument("--store", default="./store", help="where rows go (default: ./store)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    arguments = parser.parse_args()
    try:
        run = _read(arguments.spec)
        store = Store.at(arguments.store)
        store.require_writable()
        return _train(run, store, arguments.threads)
    except UserError as error:
        print(f"workers: {error}", file=sys.stderr)
        return 2


def _read(path: str) -> RunSpec:
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        return RunSpec.model_validate_json(json.dumps(record.get("spec", record)))
    except (OSError, ValueError, ValidationError, AttributeError) as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{path}: not a run specification: {detail}") from None


def _train(run: RunSpec, store: Store, threads: int) -> int:
    import torch

    from workers.train import train

    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"run {run.run_id}: {run.describe()} on {device}")
    status = None
    for progress in train(run, store, device):
        status = progress.status
        if progress.loss is not None and (status or progress.step % 10 == 0):
            print(f"step {progress.step}/{progress.steps} loss {progress.loss:.4f}", flush=True)
    print(f"run {run.run_id}: {status}")
    return 0 if status == "finished" else 1


if __name__ == "__main__":
    sys.exit(main())
