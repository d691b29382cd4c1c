"""What readers are told of closed runs: by the index while the record stands, and no longer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from planted_measurements import record_distance
from planted_store import run_spec, write_run
from polars.testing import assert_frame_equal

from sweeps.files.listing import entries
from sweeps.files.mirror import Mirror
from sweeps.files.whole_files import read_json, write_json
from sweeps.index import segments
from sweeps.reading.closings import Closings, add_to_index, closed_work
from sweeps.reading.tables import open_store
from sweeps.spec import Measurement
from sweeps.store import run_folder
from sweeps.store.run_folder import RunFolder
from sweeps.store.store import Store
from sweeps.upkeep.derived import derived_findings

RUNS = [run_spec(seed=seed, steps=10) for seed in range(3)]
IDS = [run.run_id for run in RUNS]
PROFILE = [0.1, 0.2]


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "s") if request.param == "folder" else request.getfixturevalue("s3_url")


@pytest.fixture
def store(place: str) -> Store:
    """Two runs that are closed and in the index, one that is only planned."""
    store = Store.at(place)
    for run, status in zip(RUNS, ("finished", "diverged"), strict=False):
        write_run(store, run, PROFILE, status=status, stop=10)
    assert add_to_index(store, IDS) == set(IDS[:2])
    return store


def statuses(store: Store, works: list[str] | None = IDS) -> list[str | None]:
    closings = Closings(store, works)
    return [closings.status(run_id) for run_id in IDS]


@pytest.fixture
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose closing records are read from now on."""
    read: list[str] = []
    done = RunFolder.done

    def watched(folder: RunFolder) -> Any:
        read.append(folder.run_id)
        return done(folder)

    monkeypatch.setattr(RunFolder, "done", watched)
    return read


@pytest.mark.parametrize("works", [IDS, None])
def test_what_the_index_has_is_not_read(
    store: Store, works: list[str] | None, nothing_read: list[str]
) -> None:
    closings = Closings(store, works)
    assert [closings.status(run_id) for run_id in IDS] == ["finished", "diverged", None]
    assert nothing_read == IDS[2:]
    first = closings.closed(IDS[0])
    assert first is not None
    assert (first.step, first.loss, first.spec) == (10, 0.3, RUNS[0].model_dump(mode="json"))
    assert [one["cause"] for one in closings.attempts(IDS[0])] == ["finished"]
    assert nothing_read == IDS[2:]


def test_index_and_records_say_the_same(store: Store, place: str) -> None:
    indexed = {i: Closings(store, IDS).closed(i) for i in IDS[:2]}
    tables = [frame.collect() for frame in open_store(place).by_name().values()]
    segments.drop(store.root)
    for run_id, entry in indexed.items():
        plain = Closings(Store.at(place), IDS).closed(run_id)
        assert entry is not None
        assert plain is not None
        assert (entry.said(), entry.attempts) == (plain.said(), plain.attempts)
    again = [frame.collect() for frame in open_store(place).by_name().values()]
    for one, other in zip(tables, again, strict=True):
        assert_frame_equal(one, other, check_exact=True, check_row_order=False)


# --------------------------------------------------------------------------------- what goes again
def test_a_forgotten_result_is_not_vouched_for(store: Store) -> None:
    store.run(IDS[0]).forget()
    store.run(IDS[1]).forget_results()
    assert statuses(store) == [None, None, None]
    write_run(store, RUNS[0], PROFILE, status="diverged", stop=10)
    assert statuses(store) == ["diverged", None, None]


def test_the_index_hears_of_it_before_the_record_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgetting ends between the two, as by a crash: nobody is told a result that may go."""
    bury = run_folder.bury_result

    def bury_and_crash(path: Any) -> None:
        bury(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "bury_result", bury_and_crash)
    with pytest.raises(KeyboardInterrupt):
        store.run(IDS[0]).forget()
    assert set(segments.read(store.root).entries) == {IDS[1]}
    assert statuses(store) == ["finished", "diverged", None]  # by its record, which is there


def test_an_index_that_cannot_be_told_keeps_the_result(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: Any) -> None:
        raise OSError("the store is full")

    monkeypatch.setattr(run_folder, "bury_result", refuses)
    with pytest.raises(OSError, match="full"):
        store.run(IDS[0]).forget_results()
    assert statuses(store)[0] == "finished"


def test_a_writer_that_read_the_record_before_it_went_does_not_bring_it_back(store: Store) -> None:
    late = closed_work(store.run(IDS[0]), marked=False)
    assert late is not None
    store.run(IDS[0]).forget()
    segments.write_closed(store.root, [late])
    assert statuses(store)[0] is None


def test_a_damaged_record_is_buried_by_what_the_index_says_it_was(store: Store) -> None:
    (store.run(IDS[0]).path / "DONE.json").write_bytes(b"{")
    store.run(IDS[0]).forget()
    assert set(segments.read(store.root).entries) == {IDS[1]}


# ----------------------------------------------------------------------------------------- by hand
def test_a_folder_that_was_removed_by_hand_is_noticed(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    for run in RUNS:
        write_run(store, run, PROFILE)
    add_to_index(store, IDS)
    shutil.rmtree(tmp_path / "runs" / IDS[0])
    (tmp_path / "runs" / IDS[1] / "DONE.json").unlink()
    done = tmp_path / "runs" / IDS[2] / "DONE.json"
    done.write_text(done.read_text().replace("finished", "finishes"))
    assert statuses(store) == [None, None, None]
    assert list(derived_findings(store)) == []  # readers see it: nothing is said that is not so


def test_attempts_that_came_later_are_read(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    folder = write_run(store, RUNS[0], PROFILE)
    add_to_index(store, IDS)
    write_json(folder.attempt_path(2), {"cause": "superseded"})
    causes = [one["cause"] for one in Closings(store, IDS).attempts(IDS[0])]
    assert causes == ["finished", "superseded"]


def test_a_copy_of_a_store_is_read_by_its_records_seals(tmp_path: Path) -> None:
    """Its files have other times: each record is read once, and the entry then counts."""
    store = Store.at(str(tmp_path / "one"))
    write_run(store, RUNS[0], PROFILE)
    add_to_index(store, IDS)
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    assert statuses(Store.at(str(tmp_path / "two"))) == ["finished", None, None]


def test_a_doctor_finds_what_the_index_says_of_results_that_are_not_there(s3_url: str) -> None:
    store = Store.at(s3_url)
    for run in RUNS:
        write_run(store, run, PROFILE)
    add_to_index(store, IDS)
    assert list(derived_findings(store)) == []
    (store.run(IDS[0]).path / "DONE.json").unlink()
    write_json(store.run(IDS[1]).attempt_path(2), {"cause": "superseded"})
    (finding,) = derived_findings(store)
    assert finding.run_id == "index"
    assert "and so of 1 more" in finding.what
    assert finding.mend is not None
    finding.mend()
    assert list(derived_findings(store)) == []
    assert statuses(store) == [None, "finished", "finished"]


def test_a_doctor_finds_a_damaged_file(store: Store) -> None:
    (name,) = entries(store.root / "index")
    (store.root / "index" / name).write_bytes(b"?")
    (finding,) = derived_findings(store)
    assert finding.what == f"{name} cannot be read"


def test_a_doctor_finds_a_run_that_is_recorded_under_another_id(store: Store) -> None:
    from planted_store import save_sweep

    save_sweep(store, "s", RUNS)
    assert list(derived_findings(store)) == []
    path = store.version("s").folder / "resolved.json"
    record = read_json(path)
    record["runs"][1]["spec"]["seed"] = 77
    write_json(path, record)
    (finding,) = derived_findings(store)
    assert finding.run_id == "sweep s"
    assert IDS[1] in finding.what


# ----------------------------------------------------------------------------------- what is put in
def test_what_is_not_settled_is_left_for_later(store: Store) -> None:
    folder = write_run(store, RUNS[2], PROFILE)
    attempt = read_json(folder.attempt_path(1))
    write_json(folder.attempt_path(1), {**attempt, "cause": None})
    assert add_to_index(store, IDS) == set(IDS[:2])
    assert Closings(store, IDS).unindexed() == [IDS[2]]
    write_json(folder.attempt_path(1), attempt)
    assert add_to_index(store, IDS) == set(IDS)
    assert Closings(store, IDS).unindexed() == []


def test_what_is_there_already_is_not_written_again(store: Store) -> None:
    before = entries(store.root / "index")
    add_to_index(store, IDS)
    assert entries(store.root / "index") == before


def test_a_measurement_is_in_the_index_with_its_result(store: Store, place: str) -> None:
    record_distance(store, RUNS[0], [0.25, 0.75])
    one = Measurement(kind="objective_distance", run=RUNS[0])
    add_to_index(store, [one.work_id])
    found = Closings(Store.at(place), [one.work_id]).result(one.work_id)
    assert found is not None
    assert found["distance"] == pytest.approx(0.5)
    runs = open_store(place).runs().select("objective_distance").collect()
    assert runs["objective_distance"].to_list() == [pytest.approx(0.5)] * 2
    store.work(one.work_id).forget()
    assert Closings(Store.at(place), [one.work_id]).result(one.work_id) is None


def test_records_of_what_the_index_has_are_not_fetched(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(Store.at(s3_url), RUNS[0], PROFILE)
    add_to_index(Store.at(s3_url), IDS)
    monkeypatch.setenv("DEPTHSWEEP_CACHE", str(tmp_path / "another node"))
    closings = Closings(Store.at(s3_url), IDS)
    assert closings.status(IDS[0]) == "finished"
    mirror: Mirror | None = closings.store.mirror
    assert mirror is not None
    assert not [path for path in mirror.folder.rglob("*") if path.name == "DONE.json"]


def test_a_result_made_again_bit_by_bit_is_read_from_its_record(store: Store) -> None:
    store.run(IDS[0]).forget()
    write_run(store, RUNS[0], PROFILE)
    before = entries(store.root / "index")
    assert add_to_index(store, IDS) == set(IDS[:2])
    assert entries(store.root / "index") == before
    assert statuses(store) == ["finished", "diverged", None]
    assert Closings(store, IDS).unindexed() == []
    store.run(IDS[0]).forget()
    write_run(store, RUNS[0], [0.4, 0.5])
    assert Closings(store, IDS).unindexed() == [IDS[0]]


def test_runs_of_a_store_on_s3_that_knows_no_sweep_are_read(s3_url: str) -> None:
    write_run(Store.at(s3_url), RUNS[0], PROFILE)
    assert open_store(s3_url).runs().collect()["run_id"].to_list() == [IDS[0]]
