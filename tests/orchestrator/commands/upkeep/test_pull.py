"""``depthsweep pull`` and ``merge`` as a user calls them, killed and called again."""

import json
import subprocess
import sys
import time

import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.store.store import Store
from sweeps.upkeep.rubbish import rubbish_of_runs
from tests.orchestrator.command_line import typed

PROFILE = [0.3, 0.1, 0.2]


def command(*arguments):
    return [sys.executable, "-m", "orchestrator", *map(str, arguments)]


def planted(location, seeds, name="study"):
    store = Store.at(str(location))
    runs = [run_spec("opt", "mlm", seed=seed) for seed in seeds]
    for run in runs:
        write_run(store, run, PROFILE)
    save_sweep(store, name, runs)
    return store


def digest(location, name="study"):
    said = typed("digest", name, "--store", location)
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_a_sweep_goes_to_an_object_store_and_back_with_its_digest(tmp_path, s3_url):
    planted(tmp_path / "old", (1, 2))
    up = typed("pull", tmp_path / "old", "--store", s3_url, "--sweep", "study")
    assert up.returncode == 0, up.stderr
    assert "2 brought, " in up.stdout
    down = typed("pull", s3_url, "--store", tmp_path / "new", "--json")
    assert down.returncode == 0, down.stderr
    assert {one["outcome"] for one in json.loads(down.stdout)["runs"].values()} == {"brought"}
    assert digest(tmp_path / "new") == digest(s3_url) == digest(tmp_path / "old")


def test_a_pull_that_was_killed_goes_on_when_called_again(tmp_path):
    planted(tmp_path / "old", range(12))
    words = ("pull", tmp_path / "old", "--store", tmp_path / "new")
    new = tmp_path / "new" / "runs"
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not list(new.glob("*/*/*.parquet")) and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.wait()
    again = typed(*words)
    assert again.returncode == 0, again.stderr
    assert digest(tmp_path / "new") == digest(tmp_path / "old")
    left = [item.where for item in rubbish_of_runs(Store.at(str(tmp_path / "new")))]
    assert all(".tmp" in where for where in left)


def test_several_stores_are_merged_and_the_first_result_of_a_run_stays(tmp_path):
    planted(tmp_path / "a", (1, 2))
    planted(tmp_path / "b", (2, 3))
    planted(tmp_path / "c", (4,), "other")
    other = Store.at(str(tmp_path / "b"))
    differs = run_spec("opt", "mlm", seed=2)
    other.run(differs.run_id).forget()
    write_run(other, differs, [0.9, 0.9, 0.9])
    stores = [tmp_path / name for name in "abc"]
    said = typed("merge", *stores, "--into", tmp_path / "all")
    assert said.returncode == 0, said.stderr
    assert f"1 have other rows here, which stay: {differs.run_id}" in said.stdout
    assert max(map(len, said.stdout.splitlines())) <= 80 + len(str(tmp_path))
    assert digest(tmp_path / "all") == digest(tmp_path / "a")
    assert digest(tmp_path / "all", "other") == digest(tmp_path / "c", "other")
    versions = [one.digest for one in Store.at(str(tmp_path / "all")).versions()]
    assert len(versions) == 3
    assert len(Store.at(str(tmp_path / "all")).runs()) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pull", "none", "--store", "new"), "none: no such folder"),
        (("merge", "old", "none", "--into", "new"), "none: no such folder"),
        (("pull", "old", "--store", "old"), "is both stores"),
        (("pull", "old", "--store", "new", "--sweep", "stdy"), "did you mean 'study'"),
    ],
)
def test_a_mistake_is_said_before_anything_is_copied(tmp_path, words, message):
    planted(tmp_path / "old", (1,))
    places = ("old", "new", "none")
    said = typed(*(tmp_path / word if word in places else word for word in words))
    assert said.returncode == 2, said.stdout
    assert message in said.stderr
    assert not (tmp_path / "new" / "runs").exists()
