"""Files and folders take their place whole, with the mode that everything else here has."""

import errno
import os
import stat
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from sweeps.files.records import create
from sweeps.files.whole_files import unless_stale, whole_file, whole_folder, write_json


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_files_and_folders_follow_the_umask_whatever_library_wrote_them(tmp_path, umask):
    with whole_file(tmp_path / "a.safetensors") as temporary:
        save_file({"a": np.zeros(2)}, temporary)
    write_json(tmp_path / "b.json", {})
    assert create(tmp_path / "c.json", {}) is not None
    assert create(tmp_path / "d.json", {"token": "abc"}, "abc") is not None
    with whole_folder(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir()
        save_file({"a": np.zeros(2)}, temporary / "inner" / "e.safetensors")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 6
    assert {mode(path) for path in files} == {0o666 & ~umask}
    assert mode(tmp_path / "folder") == 0o777 & ~umask


def test_the_umask_is_not_touched_while_others_write(tmp_path):
    """Asking for the umask sets it: a file that another thread creates meanwhile would be open."""
    before = os.umask(0o077)
    try:
        found = set()

        def create():
            for k in range(200):
                path = tmp_path / f"other-{k}"
                path.touch()
                found.add(mode(path))

        thread = threading.Thread(target=create)
        thread.start()
        for k in range(100):
            write_json(tmp_path / f"mine-{k}.json", {})
        thread.join()
        assert found == {0o600}
    finally:
        os.umask(before)


def test_a_file_that_fails_on_the_way_leaves_what_was_there(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})

    def fail():
        with whole_file(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert "old" in (tmp_path / "a.json").read_text()


def test_of_two_that_create_one_file_the_second_is_told(tmp_path):
    assert create(tmp_path / "a.json", {"first": 1}) == ""
    assert create(tmp_path / "a.json", {"second": 2}) is None
    assert "first" in (tmp_path / "a.json").read_text()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_another_machine_replaced_meanwhile_is_read_again():
    stale = OSError(errno.ESTALE, "Stale file handle")
    answers = [stale, "new", stale, stale, OSError(errno.EIO, "Input/output error")]

    def read():
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert unless_stale(read) == "new"
    with pytest.raises(OSError, match="Stale"):
        unless_stale(read)
    with pytest.raises(OSError, match="Input/output"):
        unless_stale(read)
    assert answers == []
