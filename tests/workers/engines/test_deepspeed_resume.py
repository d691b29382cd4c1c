"""Checkpoints of every ZeRO stage: bit-exact at the same world size, by rounding at another."""

from pathlib import Path

import pytest

pytest.importorskip("deepspeed")

import resume_cells
from engine_cells import in_ranks
from resume_cells import CELLS, go
from safetensors.torch import load_file

# As in the parity table: gradients are summed in another order at another world size, and two steps
# of about 2e-3 follow the checkpoint.
TOLERANCE = 3e-6


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder of checkpoints from two ranks, and the weights of the runs that went on."""
    folder = tmp_path_factory.mktemp("stopped")
    in_ranks(resume_cells.__file__, ["save", str(folder)], 2)
    return folder, load_file(folder / "save-2.safetensors")


def resumed(folder, ranks):
    in_ranks(resume_cells.__file__, ["resume", str(folder)], ranks)
    return load_file(Path(folder) / f"resume-{ranks}.safetensors")


def test_the_same_world_size_goes_on_bit_for_bit(stopped):
    folder, unbroken = stopped
    found = resumed(folder, 2)
    assert [cell.name for cell in CELLS if not found[cell.name].equal(unbroken[cell.name])] == []


def test_another_world_size_goes_on_within_rounding(stopped):
    folder, unbroken = stopped
    found = resumed(folder, 1)
    apart = {name: (found[name] - unbroken[name]).abs().max().item() for name in unbroken}
    assert {name: value for name, value in apart.items() if not value <= TOLERANCE} == {}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_plain_engine_goes_on_from_a_checkpoint_of_any_stage(cell, stopped):
    folder, unbroken = stopped
    found = go(cell, "plain", folder, "resume")
    assert (found - unbroken[cell.name]).abs().max() <= TOLERANCE
