"""Arms of which one stopped early, compared at one step."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_store import run_spec, write_run

from sweeps.findings.persistence import compare
from sweeps.reading.tables import open_store
from sweeps.statistics.profiles import measure
from sweeps.store.store import Store


def line(slope: float) -> list[float]:
    return [0.5 + slope * i / 8 for i in range(1, 9)]


@pytest.mark.parametrize(
    ("every", "shared", "retained"),
    [(10, 10, 0.2 / 0.3), (4, 12, 0.2 / 0.3), (13, 13, 0.2 / 0.3)],
)
def test_arms_are_compared_at_the_last_step_that_both_were_probed_at(
    every, shared, retained, tmp_path: Path
) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        for control, slope, stop in (("standard", 0.3, None), ("equal_step", 0.2, 13)):
            early = {} if stop is None else {"status": "stopped", "stop": stop}
            run = run_spec(control=control, seed=seed, steps=20, probe_every=every)
            write_run(store, run, line(slope * (1 + 0.01 * seed)), **early)
    profiles = measure(open_store(store.root))
    assert profiles.left_out.is_empty()
    assert set(profiles.runs["at"]) == {20, 13}
    row = compare(profiles).row(0, named=True)
    assert (row["n"], row["verdict"]) == (3, "persists")
    assert row["retained"] == pytest.approx(retained)
    assert row["slope_against"] == pytest.approx(0.303 * shared / 20)
    said = "3 at the last step that both of a pair have: one stopped early"
    assert said in row["flags"]


def test_arms_without_a_step_that_both_were_probed_at_are_not_compared(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        for control, stop in (("standard", 9), ("equal_step", 7)):
            run = run_spec(control=control, seed=seed, steps=20)
            write_run(store, run, line(0.3 + 0.01 * seed), status="stopped", stop=stop)
    row = compare(measure(open_store(store.root))).row(0, named=True)
    assert (row["n"], row["slope_control"], row["verdict"]) == (0, None, "insufficient")
    assert "0 of 3 seeds matched with a slope" in row["flags"]


def test_runs_that_stopped_at_the_same_step_are_compared_there(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        for control, slope in (("standard", 0.3), ("equal_step", 0.2)):
            run = run_spec(control=control, seed=seed, steps=20)
            write_run(store, run, line(slope), status="stopped", stop=13)
    row = compare(measure(open_store(store.root))).row(0, named=True)
    assert (row["n"], row["flags"]) == (3, "")
    assert row["slope_against"] == pytest.approx(0.3 * 13 / 20)
