"""The change without a group of sequences, against `compare` of the rows that remain."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from state_pairs import correlated_pair, gaussian, properties, rotation, seeded, seeds
from torch import Tensor

from workers.probes.row_groups import GROUPS, Remaining, RowGroups, changes_without, row_groups
from workers.probes.rows import ProbeRows
from workers.probes.similarity import Reference, compare
from workers.spectra.inputs import Incomparable

CLOSE = 1e-10


def slow(x: Tensor, y: Tensor, groups: RowGroups) -> list[Remaining]:
    found = []
    for group in range(groups.count):
        kept = groups.of != group
        rows = int(kept.sum())
        try:
            change = compare(Reference.of(x[kept]), y[kept])
        except (Incomparable, ValueError):
            found.append(Remaining(rows, math.nan, math.nan, math.nan))
            continue
        found.append(
            Remaining(rows, change.procrustes, change.cka_distance, change.cka_distance_debiased)
        )
    return found


def assert_as_slow(x: Tensor, y: Tensor, groups: RowGroups) -> list[Remaining]:
    fast = changes_without(Reference.of(x), Reference.of(y), groups)
    expected = slow(x, y, groups)
    assert [each.rows for each in fast] == [each.rows for each in expected]
    for one, other in zip(fast, expected, strict=True):
        for name in ("procrustes", "cka_distance", "cka_distance_debiased"):
            # Of d², not of d, is the error constant, down to where d is found by the residual.
            assert getattr(one, name) == pytest.approx(
                getattr(other, name), abs=CLOSE, nan_ok=True
            ), name
    return fast


def even(n: int, count: int) -> RowGroups:
    return RowGroups(torch.arange(n) * count // n, count)


@pytest.mark.parametrize(("n", "d"), [(64, 20), (40, 40), (48, 90), (33, 5), (200, 64)])
@pytest.mark.parametrize("count", [2, 7, 16])
def test_each_group_is_as_if_its_rows_had_never_been(n: int, d: int, count: int) -> None:
    x, y = correlated_pair(n, d, seeded(n + d))
    found = assert_as_slow(x, y, even(n, count))
    assert len({each.procrustes for each in found}) == count


@pytest.mark.parametrize(("n", "d"), [(48, 12), (24, 60)])
@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6, 1e-9, 0.0])
def test_tiny_changes_keep_their_digits(n: int, d: int, size: float) -> None:
    x, _ = correlated_pair(n, d, seeded(1))
    y = (x + size * gaussian(n, d, seeded(2))) @ rotation(d, seeded(3))
    found = assert_as_slow(x, y, even(n, 8))
    if size:
        kept = even(n, 8).of != 3
        exact = compare(Reference.of(x[kept]), y[kept]).procrustes
        assert found[3].procrustes == pytest.approx(exact, rel=1e-4, abs=1e-13)
    else:
        assert max(each.procrustes for each in found) < 1e-12


@pytest.mark.parametrize(("n", "d"), [(48, 12), (24, 60)])
def test_duplicated_rows_and_uneven_groups(n: int, d: int) -> None:
    x, y = correlated_pair(n, d, seeded(5))
    x[n // 2 :], y[n // 2 :] = x[0].clone(), y[0].clone()
    assert_as_slow(x, y, RowGroups(torch.randint(0, 5, (n,), generator=seeded(6)), 5))


def test_a_group_all_of_whose_rows_were_dropped_changes_nothing() -> None:
    x, y = correlated_pair(40, 10, seeded(7))
    groups = RowGroups(torch.arange(40) % 3, 4)
    found = assert_as_slow(x, y, groups)
    assert found[3].rows == 40
    assert found[3].procrustes == pytest.approx(compare(x, y).procrustes, abs=1e-14)


@pytest.mark.parametrize("size", [3.0, 1e3, 1e6])
def test_a_group_that_holds_nearly_all_of_the_energy(size: float) -> None:
    x, y = correlated_pair(60, 14, seeded(8))
    x[:10] *= size
    y[:5] *= size
    assert_as_slow(x, y, even(60, 6))


@pytest.mark.parametrize(("n", "d"), [(40, 6), (20, 50)])
def test_rows_that_are_all_equal_once_a_group_is_gone_have_no_change(n: int, d: int) -> None:
    x, y = correlated_pair(n, d, seeded(9))
    groups = even(n, 4)
    y[groups.of != 2] = 1.5
    found = assert_as_slow(x, y, groups)
    assert math.isnan(found[2].procrustes)
    assert not math.isnan(found[1].procrustes)


def test_too_few_remaining_rows_are_no_number_and_one_group_gives_nothing() -> None:
    x, y = correlated_pair(6, 4, seeded(10))
    groups = RowGroups(torch.tensor([0, 0, 0, 1, 1, 2]), 3)
    found = assert_as_slow(x, y, groups)
    assert [math.isnan(each.cka_distance) for each in found] == [True, False, False]
    alone = RowGroups(torch.zeros(6, dtype=torch.int64), 1)
    assert list(changes_without(Reference.of(x), Reference.of(y), alone)) == []


@properties
@given(seeds, st.integers(8, 30), st.integers(1, 30), st.integers(2, 6))
def test_any_pair_and_any_groups(seed: int, n: int, d: int, count: int) -> None:
    generator = seeded(seed)
    x, y = gaussian(n, d, generator), gaussian(n, d, generator)
    of = torch.randint(0, count, (n,), generator=generator)
    fast = changes_without(Reference.of(x), Reference.of(y), RowGroups(of, count))
    for one, other in zip(fast, slow(x, y, RowGroups(of, count)), strict=True):
        assert one.procrustes == pytest.approx(other.procrustes, abs=1e-7, nan_ok=True)
        assert one.cka_distance == pytest.approx(other.cka_distance, abs=CLOSE, nan_ok=True)


def rows_of(sequences: int, each: int) -> ProbeRows:
    return ProbeRows(
        torch.zeros(sequences, 8, dtype=torch.int64),
        torch.arange(sequences).repeat_interleave(each),
        torch.arange(each).repeat(sequences) + 1,
    )


@pytest.mark.parametrize("sequences", [2, 5, 16, 64, 70])
def test_groups_are_of_whole_sequences_and_of_like_size(sequences: int) -> None:
    rows = rows_of(sequences, 3)
    groups = row_groups(rows)
    assert groups.count == min(GROUPS, sequences)
    members = [set(rows.sequence[groups.of == g].tolist()) for g in range(groups.count)]
    assert sum(map(len, members)) == sequences == len(set.union(*members))
    assert max(map(len, members)) - min(map(len, members)) <= 1


def test_rows_that_are_left_out_move_no_other_row_to_another_group() -> None:
    rows = rows_of(64, 2)
    kept = torch.ones(128, dtype=torch.bool)
    kept[:20] = False
    after = row_groups(rows.only(kept))
    assert torch.equal(after.of, row_groups(rows).of[kept])
    assert after.count == GROUPS
