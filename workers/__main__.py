"""Run one RunSpec without Ray: ``python -m workers run.json --store ./store``.

Several processes share a run under torchrun: ``torchrun --nproc-per-node 2 -m workers run.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from sweeps.attempts.attempt import Superseded
from sweeps.errors import UserError
from sweeps.spec import RunSpec
from sweeps.store.records import COMPLETE
from sweeps.store.store import Store
from workers.ranks.lasting_imports import lasting_imports
from workers.ranks.rank_process import end_process

# Exit codes of a run that was told to stop: 128 and the number of the signal that usually says so.
STOPPED = {"cancelled": 130, "preempted": 143}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("spec", help="a RunSpec as JSON: run.json, or one of resolved.json's runs")
    parser.add_argument("--store", default="./store", help="folder or URL (default: ./store)")
    parser.add_argument(
        "--store-id",
        help="the id in its store.json: refuse any other folder, and make nothing there",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    arguments = parser.parse_args()
    try:
        run = _read(arguments.spec)
        store = _store(arguments.store, arguments.store_id)
        return _train(run, store, arguments.threads, arguments.store_id is None)
    except UserError as error:
        print(f"workers: {error}", file=sys.stderr)
        return 2
    except Superseded as error:
        print(f"workers: {error}", file=sys.stderr)
        return 1


def _read(path: str) -> RunSpec:
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        return RunSpec.model_validate_json(json.dumps(record.get("spec", record)))
    except ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        where = ".".join(map(str, first["loc"]))
        detail = f"{where}: {first['msg']}" + (f", and {more} more" if more else "")
    except (OSError, ValueError, AttributeError) as error:
        detail = " ".join(str(error).split())
    raise UserError(f"{path}: not a run specification: {detail[:200]}")


def _store(location: str, known: str | None) -> Store:
    """Return the store to work in; raise UserError where it is not the one whose id is ``known``.

    Without an id it is whatever lies there, or is begun there now.
    """
    store = Store.at(location)
    if known is None:
        store.require_writable()
    elif (wrong := store.complaint(known)) is not None:
        raise UserError(f"--store {wrong}")
    return store


def _train(run: RunSpec, store: Store, threads: int, begins: bool) -> int:
    """Carry the run out; the first process gives a store that ``begins`` here its id."""
    with lasting_imports():
        import torch

        from workers.progress import PREPARATION
        from workers.ranks.notice import Notice, given_by_signals
        from workers.ranks.peers import PEERS
        from workers.ranks.process_group import Ranks
        from workers.train import train

    torch.set_num_threads(threads)
    ranks = Ranks.from_environment()
    device = ranks.device()
    run = for_processes(run, ranks.size)
    say = print if ranks.leads else lambda *_, **__: None
    if ranks.leads and begins:
        store.identify()
    say(f"run {run.run_id}: {run.describe()} on {ranks.size} × {device.type}")
    status, step, evaluated, notice = None, 0, None, Notice()
    with (
        given_by_signals(notice),
        PREPARATION.heard_by(lambda work: say(work, flush=True)),
        PEERS.told(lambda line: print(f"workers: {line}", file=sys.stderr, flush=True)),
    ):
        for progress in train(run, store, device, ranks, notice):
            status, step = progress.status, progress.step
            if progress.loss is not None and (status or step % 10 == 0):
                say(f"step {step}/{progress.steps} loss {progress.loss:.4f}", flush=True)
            if progress.evaluation is not None and progress.evaluation["step"] != evaluated:
                evaluated = progress.evaluation["step"]
                scores = {**progress.evaluation}
                del scores["step"]
                figures = " ".join(f"{name} {value:.4f}" for name, value in scores.items())
                say(f"held-out at step {evaluated}: {figures}", flush=True)
    if status in STOPPED:
        say(f"run {run.run_id}: {status}, kept up to step {step}; the same command continues it")
        return STOPPED[status]
    say(f"run {run.run_id}: {status}")
    return 0 if status in COMPLETE else 1


def for_processes(run: RunSpec, processes: int) -> RunSpec:
    """Return the run for as many processes as were started, where it does not say how many.

    Raises UserError when they cannot share its batch.
    """
    if run.execution.processes is not None:
        return run
    data = run.model_dump(mode="json")
    data["execution"]["processes"] = processes
    try:
        return RunSpec.model_validate_json(json.dumps(data))
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"{processes} processes were started: {message}") from None


if __name__ == "__main__":
    end_process(main())
