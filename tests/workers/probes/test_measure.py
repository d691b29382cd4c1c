"""The rows of a probe, from states that are given: what is compared with what, and what is not."""

import math
from dataclasses import asdict

import pytest
import torch
from state_pairs import gaussian, seeded
from torch import nn

from sweeps.sources.corpora import corpus_digest
from sweeps.spec import METRICS, BuiltinData, Probe
from sweeps.store.schema import NULL_METRICS
from workers.depth.stacks import Stack
from workers.probes import measure
from workers.probes.capture import ReferenceStates
from workers.probes.measure import DepthProbe, Measured
from workers.probes.rows import ProbeRows, largest_share
from workers.probes.similarity import Reference, compare, shuffled_null

CPU = torch.device("cpu")
PROBE = Probe(data=BuiltinData(builtin="python-docs", digest=corpus_digest("python-docs")), seed=3)
# Eight sequences, of each of which three tokens are measured; one row was left out.
ROWS = ProbeRows(
    torch.zeros(8, 4, dtype=torch.long),
    torch.arange(8).repeat_interleave(3),
    torch.arange(24) % 3 + 1,
    left_out=1,
)
BLOCKS = (nn.Linear(1, 1), nn.ReLU())
STACKS = [Stack(None, "h", BLOCKS, (0, 1), 6)]


def states(seed, count=3):
    return [gaussian(24, 6, seeded(seed + k)).float() for k in range(count)]


@pytest.fixture
def measured(monkeypatch):
    """Return what a probe finds, of the states before and now."""

    def of(before, now, *, stacks=STACKS, steps=(7,), **options):
        monkeypatch.setattr(measure, "capture", lambda *_: now)
        probe = DepthProbe(PROBE, ReferenceStates(ROWS, before), nn.Identity(), stacks, CPU)
        return [probe.measure(step, **options) for step in steps][-1]

    return of


def test_a_row_is_the_change_of_its_layer_and_says_where_it_is(measured):
    before, now = states(0), states(10)
    found = measured(before, now)
    assert (found.finite, found.incomparable, found.jackknife, found.own) == (True, [], [], [])
    for k, row in enumerate(found.rows):
        change = asdict(compare(before[k], now[k]))
        assert {name: row[name] for name in METRICS} == {name: change[name] for name in METRICS}
        null = shuffled_null(Reference.of(before[k]), torch.Generator().manual_seed(3))
        for name in NULL_METRICS:
            assert row[f"{name}_null"] == getattr(null, name)
        assert row["largest_share_before"] == largest_share(before[k])
        assert row["largest_share"] == largest_share(now[k])
    places = ("layer", "stack", "block_number", "iteration", "block_class", "depth", "stack_layers")
    assert [tuple(row[name] for name in places) for row in found.rows] == [
        (0, None, 0, 0, None, 0.0, 2),
        (1, None, 1, 0, "Linear", 0.5, 2),
        (2, None, 2, 0, "ReLU", 1.0, 2),
    ]
    about = ("rows", "width", "sequences", "rows_left_out")
    assert {tuple(row[name] for name in about) for row in found.rows} == {(24, 6, 8, 1)}


def test_the_null_of_a_layer_is_the_same_at_every_step(measured, monkeypatch):
    asked = []

    def counted(reference, generator):
        asked.append(reference.label)
        return shuffled_null(reference, generator)

    monkeypatch.setattr(measure, "shuffled_null", counted)
    measured(states(0), states(10), steps=(7, 14, 21))
    assert asked == [f"layer {k} before fine-tuning" for k in range(3)]


def test_without_each_group_is_the_change_of_the_rows_of_the_others(measured):
    before, now = states(0), states(10)
    found = measured(before, now, jackknife=True).jackknife
    assert [(row["layer"], row["sequence_group"]) for row in found] == [
        (layer, group) for layer in range(3) for group in range(8)
    ]
    for row in found:
        layer, rest = row["layer"], ROWS.sequence != row["sequence_group"]
        change = compare(before[layer][rest], now[layer][rest])
        assert row["rows"] == 21
        for name in NULL_METRICS:
            assert row[name] == pytest.approx(getattr(change, name), rel=1e-9)
    assert [row["block_class"] for row in found[::8]] == [None, "Linear", "ReLU"]


@pytest.mark.parametrize("when", ["before", "now"])
def test_a_state_without_variation_has_a_row_of_no_numbers_and_a_reason(measured, when):
    before, now = states(0), states(10)
    (before if when == "before" else now)[1] = torch.ones(24, 6)
    found = measured(before, now, jackknife=True)
    (reason,) = found.incomparable
    label = "layer 1 before fine-tuning" if when == "before" else "layer 1 at step 7"
    assert reason.startswith(f"{label}: all 24 rows are equal")
    assert found.finite
    assert [math.isnan(row["procrustes"]) for row in found.rows] == [False, True, False]
    names = [*METRICS, *(f"{name}_null" for name in NULL_METRICS)]
    assert all(math.isnan(found.rows[1][name]) for name in names)
    assert found.rows[1].keys() == found.rows[0].keys()
    for row in found.jackknife:
        assert math.isnan(row["procrustes"]) == (row["layer"] == 1)
        assert row.keys() == found.jackknife[0].keys()
        assert row["rows"] == (24 if row["layer"] == 1 else 21)
    assert len(found.jackknife) == 24


def test_states_that_are_not_finite_are_said_and_have_no_jackknife(measured):
    now = states(10)
    now[2][5, 1] = math.inf
    found = measured(states(0), now, jackknife=True)
    assert not found.finite
    assert found.jackknife == []
    assert "layer 2 at step 7: 1 of 144 values are not finite" in found.incomparable[0]
    assert len(found.rows) == 3


def test_on_a_rank_that_compares_nothing_there_are_no_rows(measured):
    found = measured([], states(10), jackknife=True)
    assert (found.rows, found.jackknife, found.own, found.subspaces) == ([], [], [], [])
    assert found.finite


def test_a_block_that_runs_twice_has_its_turns_compared(measured):
    found = measured(states(0), states(10), stacks=[Stack(None, "h", BLOCKS[:1], (0, 0), 6)])
    assert [(row["layer"], row["block_number"], row["iteration"]) for row in found.rows] == [
        (0, 0, 0),
        (1, 1, 0),
        (2, 1, 1),
    ]
    (turns,) = found.subspaces
    assert (turns["block_number"], turns["iteration"], turns["later_iteration"]) == (1, 0, 1)
    assert found.by_table() == {
        "profiles": found.rows,
        "jackknife": [],
        "metrics": [],
        "subspaces": [turns],
    }


def test_the_pulse_is_felt_at_every_layer(measured, monkeypatch):
    beats = []

    class Pulse:
        def beat(self):
            beats.append(1)

    monkeypatch.setattr(measure, "PULSE", Pulse())
    measured(states(0), states(10))
    assert len(beats) == 3
    measured(states(0), states(10), jackknife=True)
    assert len(beats) == 3 + 3 + 3


@pytest.mark.parametrize(
    ("rows", "slope"),
    [
        ([(None, 0, 9.0), (None, 1, 0.2), (None, 2, 0.5)], 0.6),
        ([("a", 0, 1.0), ("a", 1, 0.1), ("a", 2, 0.9), ("b", 1, 0.2), ("b", 2, 0.3)], 0.2),
        ([(None, 0, 1.0), (None, 1, math.nan), (None, 2, 0.5)], None),
        ([(None, 0, 1.0), (None, 1, 0.5)], None),
        ([], None),
    ],
)
def test_a_watcher_is_told_the_slope_of_the_last_stack(rows, slope):
    told = Measured(
        [{"stack": stack, "layer": layer, "procrustes": d} for stack, layer, d in rows], True
    ).summary(7)
    assert told == {"step": 7, "slope": None if slope is None else pytest.approx(slope)}
