"""What goes along with a job."""

from pathlib import Path

import pytest

from orchestrator.jobs.working_directory import PACKAGES, local_files, working_directory
from sweeps.declaration.expand import SweepFile, read_sweep
from sweeps.errors import UserError


@pytest.fixture
def sweep(tmp_path):
    text = Path("sweeps/library/demo.yaml").read_text(encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.txt").write_text("some text\n" * 9)

    def write(file):
        path = tmp_path / "mine.yaml"
        path.write_text(text.replace("{builtin: python-source}", f"{{file: {file}}}", 1))
        return path

    return write


def test_files_beside_the_sweep_go_along_and_give_the_same_runs(sweep):
    path = sweep("data/rows.txt")
    assert local_files(SweepFile.read(path)) == ["data/rows.txt"]
    with working_directory(SweepFile.read(path), with_code=True) as folder:
        there = [run.run_id for run in read_sweep(folder / "mine.yaml").runs]
        assert there == [run.run_id for run in read_sweep(path).runs]
        assert all((folder / package / "__init__.py").is_file() for package in PACKAGES)
        assert not list(folder.rglob("__pycache__"))
    assert not folder.exists()


def test_a_file_outside_the_folder_of_the_sweep_is_refused(sweep):
    with pytest.raises(UserError, match=r"\.\./rows.txt lies outside the folder"):
        local_files(SweepFile.read(sweep("../rows.txt")))


def test_an_absolute_path_is_meant_for_every_node(sweep):
    assert local_files(SweepFile.read(sweep("/data/rows.txt"))) == []


def test_the_sweep_that_goes_along_is_the_one_that_was_read(sweep):
    path = sweep("data/rows.txt")
    file = SweepFile.read(path)
    text = path.read_text()
    path.write_text(text.replace("seed: [0, 1", "seed: [7, 8"))
    with working_directory(file, with_code=False) as folder:
        assert (folder / "mine.yaml").read_text() == text != path.read_text()
