"""``depthsweep ls`` as a user calls it, of a store on files and of one on an S3 server."""

import json

import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.files.whole_files import write_text
from sweeps.store.store import Store
from tests.orchestrator.command_line import typed

FIRST = [run_spec("opt", "mlm", seed=seed) for seed in (0, 1)]
SECOND = [*FIRST, run_spec("opt", "mlm", seed=2, steps=6, probe_every=3)]
ORPHAN = run_spec("bert", "mlm", seed=5)


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    location = str(tmp_path / "store")
    if request.param == "s3":
        location = request.getfixturevalue("s3_url")
    store = Store.at(location)
    for run in (*FIRST, ORPHAN):
        write_run(store, run, [0.3, 0.1, 0.2])
    write_text(store.run(FIRST[0].run_id).path / "checkpoints" / "step-000001" / "w", "x" * 1000)
    save_sweep(store, "alone", FIRST[:1])
    save_sweep(store, "study", SECOND)
    save_sweep(store, "study", FIRST[1:])
    return store


def test_sweeps_are_listed_newest_first_with_versions_states_and_orphans(store):
    shown = typed("ls", "--store", store.location)
    assert shown.returncode == 0, shown.stderr
    head, study, alone, *notes = shown.stdout.splitlines()
    assert head.split() == ["sweep", "version", "run", "of", "runs", "finished"]
    current = store.version("study").digest
    assert study.split()[:2] == ["study", current[:8]]
    assert study.split()[-3:] == ["2", "1", "1"]
    assert alone.split()[-3:] == ["1", "1", "1"]
    said = " ".join(" ".join(notes).split())
    assert "2 runs of older versions only" in said
    assert f"1 run belongs to no version of a sweep: {ORPHAN.run_id}" in said
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_a_sweep_is_listed_with_its_versions_and_what_varies(store):
    older = next(v for v in store.versions() if v.sweep == "study" and len(v.run_ids) == 3)
    shown = typed("ls", f"study@{older.digest[:6]}", "--store", store.location)
    assert shown.returncode == 0, shown.stderr
    assert f"study@{older.digest}" in shown.stdout
    assert store.version("study").digest in shown.stdout
    assert "3 runs, 2 finished, 1 waiting" in " ".join(shown.stdout.split())
    rows = [line.split() for line in shown.stdout.splitlines() if "opt" in line]
    assert [row[:2] for row in rows] == [
        [run.run_id, "waiting" if run.seed == 2 else "finished"] for run in SECOND
    ]
    assert "steps" in shown.stdout


def test_runs_are_chosen_by_state_and_settings_over_all_sweeps(store):
    shown = typed("ls", "--where", "status=finished,seed=0", "--json", "--store", store.location)
    assert shown.returncode == 0, shown.stderr
    sweeps = json.loads(shown.stdout)["sweeps"]
    assert {one["name"]: [run["run_id"] for run in one["runs"]] for one in sweeps} == {
        "alone": [FIRST[0].run_id],
        "study": [],
    }


def test_sizes_add_up_to_the_files_there_are(store):
    shown = typed("ls", "--sizes", "--json", "--store", store.location)
    assert shown.returncode == 0, shown.stderr
    page = json.loads(shown.stdout)
    alone = next(one for one in page["sweeps"] if one["name"] == "alone")
    assert alone["bytes"]["checkpoints"] == page["bytes"]["checkpoints"] == 1000
    assert page["bytes"]["tables"] > alone["bytes"]["tables"] > 1000
    assert page["orphans"] == [ORPHAN.run_id]


def test_more_runs_than_fit_a_screen_are_listed_when_asked(tmp_path):
    store = Store.at(str(tmp_path / "store"))
    save_sweep(store, "many", [run_spec(seed=seed) for seed in range(50)])
    short = typed("ls", "many", "--store", store.location).stdout.splitlines()
    assert short[-1] == "… and 10 more: --runs lists them"
    whole = typed("ls", "many", "--runs", "--store", store.location).stdout.splitlines()
    assert sum("waiting" in line for line in whole) == 51
