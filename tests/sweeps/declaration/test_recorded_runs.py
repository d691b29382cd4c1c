"""Runs read back from a sweep's record: the same runs, each distinct part of them once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from planted_store import run_spec
from varied_settings import two_values, varying_settings

from sweeps.declaration.expand import read_sweep
from sweeps.declaration.recorded_runs import RecordedRuns, RecordedSpecs
from sweeps.spec import RunSpec

LIBRARY = Path(__file__).parents[3] / "sweeps" / "library"
SWEEPS = sorted(path for path in LIBRARY.glob("*.yaml") if not path.stem.endswith("claims"))


def recorded(runs: list[RunSpec]) -> list[dict[str, Any]]:
    """Return the entries of a record, as they are read from its file."""
    entries = [{"run_id": run.run_id, "spec": run.model_dump(mode="json")} for run in runs]
    return list(json.loads(json.dumps(entries)))


def same(one: RunSpec, other: RunSpec) -> bool:
    """Return whether runs are equal in what they say and in the id that follows from it."""
    return one == other and one.model_copy().run_id == other.model_copy().run_id


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_shipped_sweep_is_read_back_as_it_was(path: Path) -> None:
    runs = list(read_sweep(path).runs)
    found = RecordedRuns(recorded(runs))
    assert found.ids == [run.run_id for run in runs]
    assert all(same(one, other) for one, other in zip(found, runs, strict=True))


def test_every_setting_there_is_comes_back() -> None:
    for setting in varying_settings():
        pair = two_values(setting)
        found = RecordedRuns(recorded(list(pair)))
        assert all(same(one, other) for one, other in zip(found, pair, strict=True)), setting
        assert setting.value(found[0]) != setting.value(found[1])


def test_parts_that_are_equal_are_shared_and_others_are_not() -> None:
    kinds = ("standard", "equal_step")
    runs = [run_spec(seed=seed, control=control) for seed in (0, 1) for control in kinds]
    found = list(RecordedRuns(recorded(runs)))
    assert len({id(run.model) for run in found}) == 1
    assert len({id(run.control) for run in found}) == 2
    assert found[0].but_for_the_seed() == found[2].but_for_the_seed()
    assert found[0].but_for_the_seed() != found[1].but_for_the_seed()


def test_a_specification_is_read_when_it_is_asked_for() -> None:
    entries = recorded([run_spec(seed=0), run_spec(seed=1)])
    entries[1]["spec"]["colour"] = "red"
    found = RecordedRuns(entries)
    assert (len(found), found.ids[1], found[0].seed) == (2, entries[1]["run_id"], 0)
    assert found[0] is found[0]
    with pytest.raises(ValueError, match="colour"):
        found[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": "3"}, "seed"),
        ({"control": {"kind": "none"}}, "control"),
        ({"optimizer": {"learning_rate": -1}}, "learning_rate"),
        ({"optimizer": {"learning_rate": 1e-3, "warmup_steps": 99}}, "warmup_steps"),
        ({"new_part": {"a": 1}}, "new_part"),
    ],
)
def test_what_is_no_run_is_refused_as_ever(change: dict[str, Any], said: str) -> None:
    (entry,) = recorded([run_spec()])
    with pytest.raises(ValueError, match=said):
        RecordedSpecs().read({**entry["spec"], **change})


def test_an_id_that_is_none_is_refused() -> None:
    (entry,) = recorded([run_spec()])
    with pytest.raises(ValueError, match="is no run id"):
        RecordedSpecs().read(entry["spec"], "../elsewhere")
