"""What a page asks every few seconds: changes with the store, and reads little of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_measurements import record_distance
from planted_store import run_spec, save_sweep, write_run

from sweeps.files.whole_files import write_json
from sweeps.reading.closings import add_to_index
from sweeps.reading.store_state import StoreState
from sweeps.store.store import Store

RUNS = [run_spec(seed=seed, steps=20) for seed in range(3)]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = tmp_path / "store" if request.param == "folder" else None
    store = Store.at(str(place) if place else request.getfixturevalue("s3_url"))
    save_sweep(store, "toy", RUNS[:2])
    write_run(store, RUNS[0], [0.1, 0.2])
    add_to_index(store, [RUNS[0].run_id])
    return store


def test_it_changes_with_each_thing_that_is_new(store: Store) -> None:
    state = StoreState(store, "toy")
    seen = [state()]
    assert state() == seen[0]
    write_json(store.run(RUNS[1].run_id).attempt_path(1), {"cause": None})
    seen.append(state())
    write_run(store, RUNS[1], [0.1, 0.2], status=None, stop=10)
    seen.append(state())
    write_run(store, RUNS[1], [0.1, 0.2])
    seen.append(state())
    record_distance(store, RUNS[0], [0.5])
    seen.append(state())
    store.run(RUNS[0].run_id).forget()
    seen.append(state())
    save_sweep(store, "toy", RUNS)
    seen.append(state())
    assert len(set(seen)) == len(seen)
    assert state() == seen[-1]


def test_runs_of_other_sweeps_change_nothing(store: Store) -> None:
    state = StoreState(store, "toy")
    before = state()
    write_run(store, RUNS[2], [0.1, 0.2])
    assert state() == before


def test_the_sweep_is_read_again_only_when_its_record_is_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = Store.load_sweep

    def watched(place: Store, name: str) -> object:
        read.append(name)
        return load(place, name)

    monkeypatch.setattr(Store, "load_sweep", watched)
    state = StoreState(store, "toy")
    for _ in range(3):
        state()
    assert read == ["toy"]
    save_sweep(store, "toy", RUNS)
    state()
    assert read == ["toy", "toy"]
