"""What the turns of a loop have in common, against singular values of numpy."""

import math

import numpy as np
import pytest
import torch
from state_pairs import gaussian, rank, rotation

from workers.depth.stacks import Stack, positions
from workers.probes.similarity import Reference, compare
from workers.probes.subspaces import Turns, loops_of, overlap_of

CPU = torch.device("cpu")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


def places(calls, stack=None):
    blocks = tuple(torch.nn.Linear(1, 1) for _ in range(max(calls) + 1))
    return positions([Stack(stack, "h", blocks, tuple(calls), 1)])


def slow(earlier, later):
    """The definition: directions over rows of one, energy of the other in their span."""
    directions, lengths, _ = np.linalg.svd(centred(earlier), full_matrices=False)
    kept = rank(lengths**2, 0.95)
    return kept, np.linalg.norm(directions[:, :kept].T @ centred(later)) ** 2


def centred(x):
    x = x.double().numpy()
    x = x - x.mean(axis=0)
    return x / np.linalg.norm(x)


def states_of(turns, n, d, generator):
    """States that drift: what enters the loop, then one a call."""
    found = [gaussian(n, d, generator) * torch.logspace(0, -2, d, dtype=torch.float64) + 3]
    for _ in range(turns):
        found.append((found[-1] + 0.3 * gaussian(n, d, generator)).float())
    return found


@pytest.mark.parametrize(("n", "d"), [(40, 12), (12, 40), (30, 30)])
@pytest.mark.parametrize("calls", [[0] * 4, [0, 1, 0, 1, 0, 1]])
def test_a_row_a_pair_of_turns_has_what_singular_values_say(n, d, calls, generator):
    where = places(calls)
    before, now = (states_of(len(calls), n, d, generator) for _ in range(2))
    turns = Turns(where, [Reference.of(each) for each in before], CPU)
    rows = turns.rows(now)
    times = calls.count(0)
    assert [(r["block_number"], r["iteration"], r["later_iteration"]) for r in rows] == [
        (block + 1, one, other)
        for block in range(max(calls) + 1)
        for one in range(times)
        for other in range(one + 1, times)
    ]
    blocks = max(calls) + 1
    for row in rows:
        one, other = (
            1 + row[name] * blocks + row["block_number"] - 1
            for name in ("iteration", "later_iteration")
        )
        for states, said in ((now, ""), (before, "_before")):
            kept, share = slow(states[one], states[other])
            assert row[f"rank_95{said}"] == kept
            assert row[f"subspace_overlap{said}"] == pytest.approx(share, rel=1e-9)
    assert turns.rows(now) == rows


def test_it_is_the_overlap_that_a_model_is_compared_with_its_past_by(generator):
    x, y = (gaussian(30, 9, generator) for _ in range(2))
    assert overlap_of(Reference.of(x), Reference.of(y)) == pytest.approx(
        compare(x, y).subspace_overlap, rel=1e-12
    )


def test_turns_that_stay_in_a_plane_overlap_wholly_and_others_by_chance(generator):
    n, d = 400, 8
    plane = gaussian(n, 2, generator)
    stays = [plane @ gaussian(2, d, generator) for _ in range(3)]
    turned = [each @ rotation(d, generator) * 5 + 1 for each in stays]
    where = places([0, 0, 0])
    for states in (stays, turned):
        references = [Reference.of(each) for each in (stays[0], *states)]
        rows = Turns(where, references, CPU).rows([stays[0], *states])
        assert [row["rank_95"] for row in rows] == pytest.approx([2, 2, 2], abs=1)
        assert all(row["subspace_overlap"] > 0.94 for row in rows)
    apart = [gaussian(n, d, generator) for _ in range(4)]
    rows = Turns(where, [Reference.of(each) for each in apart], CPU).rows(apart)
    # Of d directions among n rows.
    assert all(row["subspace_overlap"] < 4 * d / n for row in rows)


def test_the_earlier_turn_s_directions_are_taken_and_not_the_later_one_s(generator):
    wide = gaussian(60, 6, generator)
    narrow = wide[:, :1] @ gaussian(1, 6, generator)
    states = [wide, wide, narrow]
    (row,) = Turns(places([0, 0]), [Reference.of(each) for each in states], CPU).rows(states)
    assert row["rank_95"] > 1
    assert row["subspace_overlap"] == pytest.approx(1, abs=0.1)
    (back,) = Turns(places([0, 0]), [Reference.of(each) for each in states], CPU).rows(
        [wide, narrow, wide]
    )
    assert back["rank_95"] == 1
    assert back["subspace_overlap"] < 0.5


def test_a_turn_that_cannot_be_compared_has_rows_of_nan(generator):
    states = states_of(3, 20, 5, generator)
    references = [Reference.of(each) for each in states]
    broken = [*states[:3], torch.full_like(states[3], math.nan)]
    rows = Turns(places([0, 0, 0]), references, CPU).rows(broken)
    known = {(r["iteration"], r["later_iteration"]): r["subspace_overlap"] for r in rows}
    assert known[0, 1] > 0
    assert math.isnan(known[0, 2])
    assert math.isnan(known[1, 2])
    assert all(row["subspace_overlap_before"] > 0 for row in rows)
    unfit = Turns(places([0, 0, 0]), [*references[:3], "all rows are equal"], CPU).rows(states)
    assert [math.isnan(row["rank_95_before"]) for row in unfit] == [False, True, True]


def test_a_model_whose_blocks_run_once_has_no_loop(generator):
    where = places([0, 1, 2])
    assert loops_of(where) == ()
    states = states_of(3, 20, 5, generator)
    assert Turns(where, [Reference.of(each) for each in states], CPU).rows(states) == []


def test_loops_of_two_stacks_are_kept_apart():
    where = (*places([0, 0], "encoder"), *places([0, 1, 0, 1], "decoder"))
    assert [(loop.stack, loop.block, loop.turns) for loop in loops_of(where)] == [
        ("encoder", 1, (1, 2)),
        ("decoder", 1, (4, 6)),
        ("decoder", 2, (5, 7)),
    ]
