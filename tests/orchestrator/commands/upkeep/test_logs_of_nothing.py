"""What ``logs`` and ``cancel`` say of a name that no job has: whether it is the name or the job."""

from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.store.store import Store
from tests.orchestrator.command_line import typed


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> tuple[Path, str]:
    """A store that ran the sweep ``study`` here, and the id of its run."""
    root = tmp_path_factory.mktemp("ran") / "store"
    run = run_spec("gpt2", "clm", "standard", 0)
    write_run(Store.at(str(root)), run, [0.1, 0.2])
    save_sweep(Store.at(str(root)), "study", [run])
    return root, run.run_id


def told(root: Path, *words: str) -> str:
    """Return the line that a command refuses with."""
    done = typed(*words, "--store", root)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("digits", [1, 4, 11])
def test_the_beginning_of_an_id_is_told_from_a_name(store, digits):
    root, run_id = store
    said = told(root, "logs", run_id[:digits])
    assert f"no sweep and no id {run_id[:digits]!r}; did you mean {run_id!r}?" in said


def test_an_id_of_a_digit_too_many_is_known_again(store):
    root, run_id = store
    assert f"did you mean {run_id!r}?" in told(root, "logs", f"{run_id}0")


@pytest.mark.parametrize("command", ["logs", "cancel"])
def test_a_sweep_that_is_mistyped_is_no_lack_of_a_job(store, command):
    assert "no sweep 'stdy'; did you mean 'study'?" in told(store[0], command, "stdy")
    assert "no sweep 'xyz'; valid: study" in told(store[0], command, "xyz")
    assert "knows of no job of 'study': if it ran here" in told(store[0], command, "study")


@pytest.mark.parametrize("command", ["logs", "cancel"])
def test_a_store_that_only_its_cluster_sees_is_asked_for_there(tmp_path, command):
    said = told(tmp_path / "far", command, "study")
    assert f"--store {tmp_path}/far: no such folder; give the store that a run wrote to" in said
    assert "or with --cluster the one that sees it" in said
    said = told(tmp_path / "far", command, "study", "--cluster", "local")
    assert "no such folder" not in said  # a cluster is asked that may see it
