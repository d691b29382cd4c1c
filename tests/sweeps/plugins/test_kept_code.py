"""A store keeps the code that its runs use, and it goes where they go."""

from __future__ import annotations

import shutil

import pytest
from own_sweep import EXAMPLES, own_sweep, read

from orchestrator.jobs.working_directory import local_plugins, working_directory
from sweeps.declaration.expand import SweepFile, read_sweep
from sweeps.plugins.bundle import Bundle
from sweeps.store.store import Store
from sweeps.upkeep.audit import unreadable_records
from sweeps.upkeep.pulling import pull
from sweeps.versions.plugin_code import kept_code, kept_digests

SOFT = EXAMPLES / "soft_clip.py"


def store_at(folder, *sweeps) -> Store:
    store = Store.at(str(folder))
    store.identify()
    for sweep in sweeps:
        store.save_sweep(sweep)
    return store


def test_code_is_kept_where_runs_use_it_and_not_where_none_does(tmp_path):
    used = read(tmp_path, SOFT, EXAMPLES / "neighbours.py", control="soft_clip")
    store = store_at(tmp_path / "store", used)
    assert kept_digests(store.root) == [used.plugins[0].digest]
    assert store.load_sweep("own").plugins == used.plugins
    unused = store_at(tmp_path / "other", read(tmp_path, SOFT))
    assert kept_digests(unused.root) == []


@pytest.mark.parametrize("sweep", ["own", None])
def test_pulling_a_sweep_brings_its_code(tmp_path, sweep):
    used = read(tmp_path, SOFT, control="soft_clip")
    source, target = store_at(tmp_path / "store", used), store_at(tmp_path / "target")
    pull(source, target, sweep)
    assert kept_code(target.root, used.plugins[0].digest) == used.plugins[0]


def test_doctor_names_code_that_was_harmed(tmp_path):
    store = store_at(tmp_path / "store", read(tmp_path, SOFT, control="soft_clip"))
    assert list(unreadable_records(store)) == []
    kept = next((tmp_path / "store" / "plugins").iterdir())
    kept.write_text(kept.read_text().replace("strength", "length", 1))
    (finding,) = unreadable_records(store)
    assert f"plugins/{kept.name}: its runs' own code is not there, or not whole" in str(finding)


def test_a_job_carries_code_from_anywhere_and_reads_it_there(tmp_path):
    code = shutil.copytree(EXAMPLES, tmp_path / "code")
    (tmp_path / "study").mkdir()
    path = own_sweep(tmp_path / "study", "../code/soft_clip.py", control="soft_clip")
    here = read_sweep(path)
    assert local_plugins(SweepFile.read(path)) == ["../code/soft_clip.py"]
    with working_directory(SweepFile.read(path), with_code=False) as folder:
        shutil.rmtree(code)
        there = read_sweep(folder / path.name)
        assert there.plugins == here.plugins
        assert there.runs[0].run_id == here.runs[0].run_id


def test_the_text_of_a_bundle_is_the_whole_of_it():
    with pytest.raises(ValueError, match="not the code of a plugin"):
        Bundle.of_text('{"main": "/a.py", "files": {"near.py": ""}}')
