"""Gradient norms of the candidates of a step, of any family, alone or on the ranks of DeepSpeed.

``python tests/rank_scripts/sample_norms.py result.safetensors FAMILY,… STAGE`` is one of two ranks.
"""

import sys
from functools import cache
from types import SimpleNamespace

import torch
from engine_cells import Cell, prepare, weights
from safetensors.torch import save_file
from small_run import make_run

from sweeps.spec import Execution, High
from workers.engines import deepspeed
from workers.ranks.process_group import Ranks
from workers.ranks.rank_process import end_process
from workers.selection.batches import Batches

# Two ranks cannot share so many candidates evenly.
CANDIDATES, BATCH, LENGTH = 21, 4, 24
TEXTS = [" ".join(f"word{(7 * k + j) % 19} of line {k}" for j in range(9)) for k in range(40)]
ADAPTERS = {"full": 0, "lora": 4}


@cache
def measured(family, what, ranks=None, stage=0):
    """Return an objective, an engine that is not trained with, and the objective's arrays."""
    cell = Cell(family=family, lora_rank=ADAPTERS[what], stage=stage)
    objective, engine, pretrained = prepare(cell, "plain" if ranks is None else "deepspeed", ranks)
    arrays = objective.tokenise(pretrained.tokenizer, {"text": TEXTS}, LENGTH)
    return objective, engine, arrays


def batches_of(family, what, micro, ranks=None, stage=0, of=measured):
    """Return the batches of a run of one family under a selection, its engine and its objective."""
    objective, engine, arrays = of(family, what, ranks, stage)
    execution = {} if ranks is None else {"processes": ranks.size, "engine": "deepspeed"}
    run = make_run(
        batch_size=BATCH,
        sequence_length=LENGTH,
        selection=High(share=BATCH / CANDIDATES),
        execution=Execution(**execution),
    )
    return Batches(Passes(run, micro), objective, arrays, engine), engine, objective


class Passes(SimpleNamespace):
    """A run that reads so many candidates in a pass, which no batch of its size is cut into."""

    def __init__(self, run, micro):
        super().__init__(run=run, micro_batch_size=micro)

    def __getattr__(self, name):
        return getattr(self.run, name)


def trained(family, what, ranks=None, stage=0):
    """Return what is chosen in some steps, and every weight after them."""
    new = measured.__wrapped__
    batches, engine, objective = batches_of(family, what, 2, ranks, stage, of=new)
    chosen = []
    for step in range(1, 4):
        batch, rows = batches.of(step)
        chosen += [row["candidate"] for row in rows if row["chosen"]]
        objective.accumulate(engine, batch, 2)
        engine.step(1e-3)
    return torch.tensor(chosen), weights(engine)


def norms_of(family, what, micro, ranks=None, stage=0):
    """Return the candidates' losses (N,) and norms by layer (N, G)."""
    batches, _, _ = batches_of(family, what, micro, ranks, stage)
    assert batches.taken_one_by_one == ()
    batch, _ = batches.candidates(1)
    losses, squares = batches.measured(batch)
    return losses, squares.sqrt()


def cut_all():
    """Have ZeRO-3 cut every parameter: small ones, as all of a stand-in are, it would keep."""
    configure = deepspeed.configuration

    def cutting(execution, precision, device):
        made = configure(execution, precision, device)
        zero = {**made["zero_optimization"], "stage3_param_persistence_threshold": 0}
        return {**made, "zero_optimization": zero}

    deepspeed.configuration = cutting


def main():
    torch.set_num_threads(1)
    cut_all()
    ranks = Ranks.from_environment()
    result, families, stage = sys.argv[1:]
    found = {}
    for family in families.split(","):
        for what in ADAPTERS:
            losses, norms = norms_of(family, what, 4, ranks, int(stage))
            found |= {f"{family} {what}/losses": losses, f"{family} {what}/norms": norms}
    chosen, after = trained(family, "full", ranks, int(stage))
    found |= {f"{family}/chosen": chosen, f"{family}/weights": after}
    if ranks.leads:
        save_file(found, result)


if __name__ == "__main__":
    main()
    end_process()
