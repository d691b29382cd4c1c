"""Two ranks of which one cannot write for a while.

``python tests/rank_scripts/slow_shard.py FOLDER`` in each.

Rank 1 writes nothing until FOLDER/go is there, which rank 0 makes once three more steps were taken.
What rank 0 saw is left in FOLDER/seen.json.
"""

import json
import sys
import time
from pathlib import Path

import torch
from engine_cells import Cell, advance, prepare, weights
from small_run import LoneAttempt

from sweeps.attempts.attempt import OnlookersAttempt
from sweeps.attempts.manifest import damage
from sweeps.store.run_folder import RunFolder
from workers.checkpoints import writing
from workers.checkpoints.resuming import load_checkpoint
from workers.checkpoints.saving import Checkpoints
from workers.ranks.process_group import Ranks
from workers.ranks.rank_process import end_process

CELL = Cell("equal_step_mean", 2)
STOP, END, LATER = 2, 5, 7


def held_back(write, until):
    def write_layer(*arguments):
        while not until.exists():
            time.sleep(0.02)
        return write(*arguments)

    return write_layer


def main():
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    go = folder / "go"
    ranks = Ranks.from_environment()
    objective, engine, _ = prepare(CELL, "deepspeed", ranks)
    if not ranks.leads:
        writing.write_layer = held_back(writing.write_layer, go)
    run = RunFolder(folder / "run")
    run.path.mkdir(exist_ok=True)
    attempt = LoneAttempt() if ranks.leads else OnlookersAttempt()
    checkpoints = Checkpoints(run, engine, attempt, ranks=ranks)
    advance(CELL, objective, engine, range(STOP))
    of_the_step = weights(engine)
    checkpoints.save(STOP)
    advance(CELL, objective, engine, range(STOP, END))
    (path,) = (run.path / "checkpoints").iterdir()
    before = sorted(file.name for file in path.glob("*.safetensors")), run.checkpoint_steps()
    if ranks.leads:
        go.touch()
    checkpoints.wait()
    ranks.all_say(None)
    files = sorted(file.name for file in path.glob("*.safetensors"))
    complete = run.checkpoint_steps(), damage(run, path)
    # One that is given up counts for nobody, and nobody writes any more of it.
    go.unlink(missing_ok=True) if ranks.leads else None
    ranks.all_say(None)
    checkpoints.save(END)
    go.touch()
    checkpoints.drop()
    ranks.all_say(None)
    after = run.checkpoint_steps()
    advance(CELL, objective, engine, range(END, LATER))
    assert run.step_of(load_checkpoint(run, engine, ranks)) == STOP
    same = weights(engine).equal(of_the_step)
    if ranks.leads:
        seen = {"before": before, "files": files, "complete": complete, "after": after}
        (folder / "seen.json").write_text(json.dumps({**seen, "same": same}))


if __name__ == "__main__":
    main()
    end_process()
