"""Halves of a dataset share no row, whatever is read of them."""

import pytest

from workers.distance.row_halves import characters, dealt, stretches_of, taken, text_of


def half_of(rows, half, seed, examples, length):
    """Return the rows of all stretches of a half."""
    stretches = stretches_of(rows, half, seed, examples, length)
    (numbers,) = dealt(stretches, [1] * len(stretches), 1)
    return taken(rows, numbers)


def rows(count):
    return {"text": [f"text {k}" for k in range(count)], "label": [k % 3 for k in range(count)]}


@pytest.mark.parametrize("count", [2, 3, 255, 256, 1000, 1001])
@pytest.mark.parametrize("seed", [0, 5])
def test_halves_are_disjoint_and_together_all(count, seed):
    first, second, whole = (
        half_of(rows(count), half, seed, 10**6, 16) for half in ("first", "second", "all")
    )
    assert not set(first["text"]) & set(second["text"])
    assert sorted(first["text"] + second["text"]) == sorted(rows(count)["text"])
    assert sorted(whole["text"]) == sorted(rows(count)["text"])
    assert abs(len(first["text"]) - len(second["text"])) <= max(1, -(-count // 256))
    assert all(int(t.split()[1]) % 3 == label for t, label in zip(*first.values(), strict=True))


def test_the_cut_is_the_same_for_other_roles_and_another_for_another_seed():
    pairs = {"anchor": rows(50)["text"], "positive": [f"code {k}" for k in range(50)]}
    kept = half_of(pairs, "first", 1, 10**6, 16)["anchor"]
    assert kept == half_of(rows(50), "first", 1, 10**6, 16)["text"]
    assert kept != half_of(rows(50), "first", 2, 10**6, 16)["text"]


def test_of_much_text_no_more_is_read_than_is_surely_enough():
    long = {"text": ["x" * 10_000] * 5_000}
    assert 40 <= len(half_of(long, "all", 0, 40, 16)["text"]) < 100
    short = {"text": ["x" * 16] * 50_000}
    assert len(half_of(short, "all", 0, 40, 16)["text"]) >= 40 * 16


@pytest.mark.parametrize("count", [50_000, 400_000])
def test_however_large_the_data_many_stretches_of_it_are_read(count):
    """Groups are cut of stretches: a few long ones would leave some group without any."""
    long = {"text": ["x" * 500] * count}
    stretches = stretches_of(long, "second", 0, 256 * 4, 8)
    assert len(stretches) >= 60
    assert all(len(group) for group in dealt(stretches, [1] * len(stretches), 8))


def test_one_row_has_one_half():
    assert half_of(rows(1), "second", 0, 9, 9)["text"] == []


def test_text_is_every_text_of_a_row_in_turn_and_no_label():
    assert text_of({"anchor": ["a", "b"], "positive": ["c", "d"]}) == ["a", "c", "b", "d"]
    assert text_of({"text": ["a", "b"], "label": [0, 1]}) == ["a", "b"]


@pytest.mark.parametrize("groups", [2, 5, 8])
def test_groups_share_no_stretch_and_neighbours_stay_together(groups):
    stretches = stretches_of(rows(2048), "first", 3, 10**6, 16)
    found = [group.tolist() for group in dealt(stretches, [4] * len(stretches), groups)]
    numbers = [number for group in found for number in group]
    assert len(numbers) == len(set(numbers)) == 1024
    owner = {number: k for k, group in enumerate(found) for number in group}
    assert all(len({owner[number] for number in one}) == 1 for one in stretches)
    assert len(dealt(stretches[:1], [4], 2)[1]) == 0


def test_groups_of_rows_of_unlike_length_hold_about_as_much_text():
    """Text is read as far as the smallest group has any."""
    unlike = {"text": ["x" * (1 + (7 * k * k) % 400) for k in range(500)]}
    stretches = stretches_of(unlike, "all", 0, 10**6, 16)
    sizes = [characters(taken(unlike, one)) for one in stretches]
    held = [characters(taken(unlike, group)) for group in dealt(stretches, sizes, 8)]
    assert sum(held) == characters(unlike)
    assert max(held) - min(held) <= max(sizes)
