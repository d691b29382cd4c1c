"""Cells that stop and go on: ``python tests/resume_cells.py save|resume FOLDER`` in each rank.

``save`` trains three steps, writes a checkpoint and trains two more; ``resume`` starts from the
checkpoint in fresh processes. Both leave the weights after five steps.
"""

import sys
from pathlib import Path

import torch
from engine_cells import Cell, advance, prepare, weights
from safetensors.torch import save_file
from small_run import LoneAttempt

from sweeps.attempts.attempt import OnlookersAttempt
from sweeps.store.run_folder import RunFolder
from workers.checkpoints.resuming import load_checkpoint
from workers.checkpoints.saving import Checkpoints
from workers.ranks.process_group import ALONE, Ranks
from workers.ranks.rank_process import end_process

CELLS = [
    *(Cell("equal_step_mean", stage) for stage in range(4)),
    Cell("layer_clip", 2, family="bert"),
    Cell("standard", 3, offload="parameters"),
    Cell("equal_step_matrix", 1, rule="sgd"),
    Cell("layer_rates", 3, rule="sgd"),
    Cell("equal_step_mean", 2, rule="adabelief", offload="optimizer"),
]
STOP, END = 3, 5


def go(cell, engine_name, folder, mode, ranks=ALONE):
    """Return the weights after all steps of one cell."""
    objective, engine, _ = prepare(cell, engine_name, ranks)
    run = RunFolder(Path(folder) / cell.name)
    if mode == "save":
        advance(cell, objective, engine, range(STOP))
        run.path.mkdir(parents=True, exist_ok=True)
        attempt = LoneAttempt() if engine.rank == 0 else OnlookersAttempt()
        checkpoints = Checkpoints(run, engine, attempt, ranks=ranks)
        checkpoints.save(STOP)
        # Training goes on while it is written, and what is written stays that of the step.
        advance(cell, objective, engine, range(STOP, END))
        checkpoints.wait()
    else:
        assert run.step_of(load_checkpoint(run, engine, ranks)) == STOP
        advance(cell, objective, engine, range(STOP, END))
    return weights(engine)


def main():
    mode, folder = sys.argv[1:]
    torch.set_num_threads(1)
    ranks = Ranks.from_environment()
    found = {cell.name: go(cell, "deepspeed", folder, mode, ranks).contiguous() for cell in CELLS}
    if ranks.leads:
        save_file(found, Path(folder) / f"{mode}-{ranks.size}.safetensors")


if __name__ == "__main__":
    main()
    end_process()
