"""Checkpoints of every ZeRO stage: bit-exact at the same world size, by rounding at another.

The usual suite goes on from those of a few cells, which have every stage and every way of keeping
what is cut; ``make test-all`` from all.
"""

import sys
from pathlib import Path

import pytest

pytest.importorskip("deepspeed")

import resume_cells
from engine_cells import in_ranks
from resume_cells import CELLS, go
from safetensors.torch import load_file

from workers.ranks.rank_process import end_process

# As in the parity table: gradients are summed in another order at another world size, and two steps
# of about 2e-3 follow the checkpoint.
TOLERANCE = 3e-6

# Every stage once: all whole, each cut alike, weights that are tied, states and weights elsewhere.
USUAL = [
    cell
    for cell in CELLS
    if cell.offload != "none"
    or (cell.stage, cell.control)
    in ((0, "equal_step_mean"), (1, "equal_step_matrix"), (2, "layer_clip"))
]
TABLES = {"usual": USUAL, "all": CELLS}


@pytest.fixture(scope="module", params=["usual", pytest.param("all", marks=pytest.mark.slow)])
def stopped(request, tmp_path_factory):
    """A folder of checkpoints from two ranks, and the weights of the runs that went on."""
    folder = tmp_path_factory.mktemp("stopped")
    in_ranks(__file__, ["save", str(folder), request.param], 2)
    return folder, load_file(folder / "save-2.safetensors"), request.param


def resumed(folder, ranks, table):
    in_ranks(__file__, ["resume", str(folder), table], ranks)
    return load_file(Path(folder) / f"resume-{ranks}.safetensors")


def test_the_usual_cells_have_every_stage():
    assert {cell.stage for cell in USUAL} == set(range(4))


def test_the_same_world_size_goes_on_bit_for_bit(stopped):
    folder, unbroken, table = stopped
    found = resumed(folder, 2, table)
    assert found.keys() == unbroken.keys() == {cell.name for cell in TABLES[table]}
    assert [name for name in unbroken if not found[name].equal(unbroken[name])] == []


def test_another_world_size_goes_on_within_rounding(stopped):
    folder, unbroken, table = stopped
    found = resumed(folder, 1, table)
    apart = {name: (found[name] - unbroken[name]).abs().max().item() for name in unbroken}
    assert {name: value for name, value in apart.items() if not value <= TOLERANCE} == {}


def test_the_plain_engine_goes_on_from_a_checkpoint_of_any_stage(stopped):
    folder, unbroken, table = stopped
    apart = {
        cell.name: (go(cell, "plain", folder, "resume") - unbroken[cell.name]).abs().max().item()
        for cell in TABLES[table]
    }
    assert {name: value for name, value in apart.items() if not value <= TOLERANCE} == {}


if __name__ == "__main__":
    resume_cells.CELLS = TABLES[sys.argv.pop()]
    resume_cells.main()
    end_process()
