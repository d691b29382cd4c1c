"""What closes while a sweep runs gets into the store's index, and never stops the sweep."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run

from orchestrator.ledger import index_keeper
from orchestrator.ledger.index_keeper import IndexKeeper
from orchestrator.sweep_run import plan_sweep, run_sweep
from sweeps.files.whole_files import read_json, write_json
from sweeps.index import segments
from sweeps.store.store import Store

RUNS = [run_spec(seed=seed, steps=10) for seed in range(5)]
IDS = [run.run_id for run in RUNS]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.at(str(tmp_path))
    for run in RUNS:
        write_run(store, run, [0.1, 0.2])
    return store


def indexed(store: Store) -> set[str]:
    return set(segments.read(store.root).entries)


def test_results_are_written_so_many_at_once_and_the_rest_at_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_keeper, "BATCH", 2)
    written, taken = [], threading.Semaphore(0)
    add = index_keeper.add_to_index

    def added(place: Store, works: Collection[str]) -> set[str]:
        written.append(list(works))
        inside = add(place, works)
        taken.release()
        return inside

    monkeypatch.setattr(index_keeper, "add_to_index", added)
    with IndexKeeper(store, []) as keeper:
        for work_id in IDS[:2]:
            keeper.closed(work_id)
        assert taken.acquire(timeout=30)
        assert indexed(store) == set(IDS[:2])
        keeper.closed(IDS[2])
    assert written == [sorted(IDS[:2]), [IDS[2]]]
    assert indexed(store) == set(IDS[:3])


def test_what_a_worker_has_not_let_go_of_is_tried_again(store: Store) -> None:
    path = store.run(IDS[0]).attempt_path(1)
    ended = read_json(path)
    write_json(path, {**ended, "cause": None})
    with IndexKeeper(store, IDS[1:3]) as keeper:
        keeper.closed(IDS[0])
        write_json(path, ended)
    assert indexed(store) == set(IDS[:3])


def test_a_store_that_does_not_take_it_stops_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> set[str]:
        raise OSError("no space left")

    monkeypatch.setattr(index_keeper, "add_to_index", refuses)
    with IndexKeeper(store, IDS[:1]) as keeper:
        keeper.closed(IDS[1])
    assert indexed(store) == set()


def test_a_sweep_that_finds_results_in_no_index_writes_one(store: Store) -> None:
    sweep = save_sweep(store, "s", RUNS).wanting(())
    assert plan_sweep(sweep, store).unindexed == IDS
    assert indexed(store) == set()  # a plan writes nothing
    assert run_sweep(sweep, store).skipped == len(RUNS)
    assert indexed(store) == set(IDS)
    assert plan_sweep(sweep, store).unindexed == []
