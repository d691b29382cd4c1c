"""``python -m tests.readme.failed_runs``: what ``depthsweep status`` says of a sweep in which runs
failed, from a store that is planted here and gone afterwards."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.readme.page import ROOT, output_of

NAME = "rates"
ERRORS = {
    (1e-2, 0): "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
    (1e-2, 1): "ValueError: texts.csv, row 817: label 'sprots' is none of the 4 labels",
}


def plant(folder: Path) -> None:
    """Write a store of six runs at two learning rates, two of which failed."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "samples")]
    from planted_store import run_spec, write_run

    from sweeps.declaration.expand import Sweep
    from sweeps.files.whole_files import write_json
    from sweeps.store.store import Store

    store, runs = Store.at(str(folder / "store")), []
    for rate in (1e-3, 1e-2):
        for seed in range(3):
            run = run_spec("gpt2", seed=seed, learning_rate=rate)
            error = ERRORS.get((rate, seed))
            status = "finished" if error is None else "failed"
            path = write_run(store, run, [0.1, 0.2], status=status).attempt_path(1)
            if error is not None:
                said = json.loads(Path(str(path)).read_text(encoding="utf-8"))
                write_json(path, {**said, "error": error})
            runs.append(run)
    store.save_sweep(Sweep(NAME, "", f"name: {NAME}\n", tuple(runs), measurements=()))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        plant(Path(scratch))
        print(output_of(f"depthsweep status {NAME}", Path(scratch)), end="")


if __name__ == "__main__":
    main()
