"""What an attempt was made with: told by each attempt, kept by the store, asked for in SQL."""

import subprocess
from pathlib import Path

import pytest
import torch
from planted_store import run_spec, save_sweep, write_run
from small_run import make_run

from sweeps.attempts.attempt import Attempt, OnlookersAttempt
from sweeps.files.whole_files import read_json, write_json
from sweeps.reading.query import query
from sweeps.reading.tables import open_store
from sweeps.report.store_page import page_of
from sweeps.store import records
from sweeps.store.store import Store
from workers import run_record
from workers.run_record import code_digest, git_commit, made_on, provenance
from workers.train import train

CPU = torch.device("cpu")
COMMIT = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]


def a_store(folder):
    store = Store.at(str(folder / "store"))
    store.identify()
    return store


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def test_everything_that_is_kept_of_an_attempt_is_told_by_it():
    found = provenance(CPU)
    assert set(found) == set(records.PROVENANCE)
    assert found["torch_version"] == torch.__version__
    assert (found["device"], found["cuda_version"], found["driver_version"]) == ("cpu", None, None)
    assert found["ray_version"]
    assert found["code_digest"] == code_digest(Path(run_record.__file__).parents[1])


def test_a_package_that_is_added_later_is_told_and_what_is_not_installed_is_none(monkeypatch):
    more = (*records.PROVENANCE, "pydantic_version", "no-such-package_version")
    monkeypatch.setattr(run_record, "PROVENANCE", more)
    found = provenance(CPU)
    assert found["pydantic_version"]
    assert found["no-such-package_version"] is None
    assert made_on(CPU)["versions"]["pydantic"] == found["pydantic_version"]
    assert "no-such-package" not in made_on(CPU)["versions"]


def test_a_gpu_is_named_with_its_driver(monkeypatch, tmp_path):
    (tmp_path / "version").write_text("999.01\n")
    monkeypatch.setattr(run_record, "DRIVER", tmp_path / "version")
    run_record._driver.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a card {device.index}")
    found = provenance(torch.device("cuda", 3))
    run_record._driver.cache_clear()
    assert (found["device"], found["hardware"]) == ("cuda", "a card 3")
    assert found["driver_version"] == "999.01"


def test_the_commit_is_that_of_the_checkout_that_the_code_is_part_of(tmp_path):
    mine, installed = tmp_path / "code.py", tmp_path / "venv" / "lib" / "installed.py"
    installed.parent.mkdir(parents=True)
    for path in (mine, installed):
        path.write_text("x = 1\n")
    assert git_commit(mine) is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "code.py")
    git(tmp_path, *COMMIT)
    assert len(git_commit(mine)) == 40
    assert git_commit(installed) is None


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit(Path(run_record.__file__)) is None


def test_an_edit_of_the_code_is_another_code(tmp_path):
    (tmp_path / "workers").mkdir()
    (tmp_path / "orchestrator").mkdir()
    (tmp_path / "workers" / "train.py").write_text("x = 1\n")
    first = code_digest(tmp_path)
    (tmp_path / "orchestrator" / "cli.py").write_text("x = 1\n")
    code_digest.cache_clear()
    assert code_digest(tmp_path) == first
    (tmp_path / "workers" / "train.py").write_text("x = 2\n")
    code_digest.cache_clear()
    assert code_digest(tmp_path) != first
    code_digest.cache_clear()


@pytest.fixture
def store(share_cache, tmp_path):
    share_cache(tmp_path / "store")
    return a_store(tmp_path)


def test_each_attempt_at_a_run_keeps_what_it_was_made_with(store, monkeypatch):
    run = make_run(steps=4)
    steps = train(run, store, CPU)
    while next(steps).step < 3:
        pass
    steps.close()
    monkeypatch.setattr("workers.train.provenance", lambda _: {"depthsweep_version": "9.9"})
    list(train(run, store, CPU))
    first, second = store.run(run.run_id).attempts()
    assert first["code_digest"] == provenance(CPU)["code_digest"]
    assert first["resumed_from"] == 0
    assert (second["depthsweep_version"], second["code_digest"]) == ("9.9", None)
    assert second["cause"] == "finished"


def test_what_an_attempt_says_is_merged_and_what_an_onlooker_says_is_not_kept(store):
    folder = store.run("0123456789ab")
    with Attempt(folder) as mine:
        mine.resumed_from(5)
        mine.describe(torch_version="2.0", hardware="a card")
        OnlookersAttempt().describe(torch_version="2.0")
        mine.end("finished")
    (record,) = folder.attempts()
    assert (record["torch_version"], record["hardware"]) == ("2.0", "a card")
    assert (record["resumed_from"], record["cause"]) == (5, "finished")


def planted(store):
    """Two runs of one sweep, by two codes; one of them by both."""
    runs = [run_spec("opt", "mlm", seed=seed) for seed in (0, 1, 2)]
    for run, code in zip(runs, ("aaaa", "bbbb", None), strict=True):
        folder = write_run(store, run, [0.1, 0.2])
        record = read_json(folder.attempt_path(1))
        if code is not None:
            told = {"code_digest": code, "torch_version": "2.13.0", "hardware": "a card"}
            write_json(folder.attempt_path(1), {**record, **told})
    folder = store.run(runs[0].run_id)
    last = read_json(folder.attempt_path(1))
    write_json(folder.attempt_path(2), {**last, "code_digest": "bbbb"})
    save_sweep(store, "study", runs)
    return runs


def test_a_query_tells_two_codes_in_one_sweep_apart(store):
    planted(store)
    sql = (
        "SELECT code_digest, count(DISTINCT run_id) AS runs, min(torch_version) AS torch"
        " FROM attempts GROUP BY code_digest ORDER BY code_digest NULLS LAST"
    )
    found = query(open_store(store.root, sweep="study"), sql)
    assert found.rows() == [("aaaa", 1, "2.13.0"), ("bbbb", 2, "2.13.0"), (None, 1, None)]


def test_the_report_counts_runs_by_code_versions_and_hardware(store):
    planted(store)
    page = page_of("study", store.location)
    section = page[page.index("<h2>Provenance</h2>") :]
    for code, runs in (("code aaaa", 1), ("code bbbb", 2), ("commit abc", 1)):
        row = next(row for row in section.split("<tr>") if code in row)
        assert f">{runs}<" in row, row
    assert "torch 2.13.0" in section
    assert "a card" in section
