"""What every selection is held to: as many as it is asked for, each once, and the same ones again.

Candidates are of ``workers.selection.selection_rule``: norms, losses and lengths, (N,) each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sweeps.spec import PluginSelection
from workers.contract.pytest_plugin import Subject
from workers.contract.small_study import rows_of_two, small_run
from workers.selection.selection_rule import Candidates, checked_choice


def candidates(count: int, size: float = 1.0) -> Candidates:
    """Return some whose norms differ, drawn by their number."""
    draw = np.random.default_rng(count)
    norms, losses = size * (draw.random(count) + 0.1), draw.random(count) + 1
    return Candidates(norms, losses, draw.integers(1, 99, count))


@pytest.mark.parametrize("count", [2, 5, 40])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e6])
def test_it_chooses_as_many_as_it_is_asked_for_each_once(
    subject: Subject, count: int, size: float
) -> None:
    rule = subject.build()
    for wanted in {1, count // 2}:
        made = rule.choose(candidates(count, size), wanted, np.random.default_rng(0))
        checked_choice(rule, made, count, wanted)


def test_it_chooses_where_nothing_is_known_of_some_or_of_all(subject: Subject) -> None:
    rule = subject.build()
    for unknown in (1, 10):
        known = candidates(10)
        known.norms[:unknown] = known.losses[:unknown] = np.nan
        checked_choice(rule, rule.choose(known, 4, np.random.default_rng(0)), 10, 4)


def test_the_same_candidates_and_draw_give_the_same_choice_and_are_left_as_they_are(
    subject: Subject,
) -> None:
    rule, known, before = subject.build(), candidates(20), candidates(20)
    first = np.sort(rule.choose(known, 5, np.random.default_rng(7)))
    again = np.sort(rule.choose(known, 5, np.random.default_rng(7)))
    assert (first == again).all(), "ranks and resumed runs would differ"
    for name in ("norms", "losses", "lengths"):
        assert (getattr(known, name) == getattr(before, name)).all()


def test_a_run_trains_with_it_twice_to_the_same_rows(subject: Subject, tmp_path: Path) -> None:
    mark = subject.plugin.mark
    selection = PluginSelection(
        kind=mark.name, options=subject.options, code=subject.plugin.code, share=0.5
    )
    one, other = rows_of_two(small_run(selection=selection), tmp_path)
    assert one["status"] == "finished"
    assert one["samples"]
    assert one == other
