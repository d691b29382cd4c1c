import errno
import logging
import os
import queue
import threading
import time

import pyarrow as pa
import pytest
from small_run import LoneAttempt, make_run

from sweeps.attempts.writer import RunWriter
from sweeps.errors import UserError
from sweeps.files import patience
from sweeps.files.patience import (
    StoreRefused,
    StoreUnavailable,
    patiently,
    telling_of_silence,
    waiting_since,
)
from sweeps.store.run_folder import RunFolder


@pytest.fixture
def waits(monkeypatch):
    slept = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    return slept


def failing(times, error):
    left = [error] * times

    def write():
        if left:
            raise left.pop()
        return "written"

    return write


def test_a_store_that_comes_back_is_written(tmp_path, waits):
    full = OSError(errno.ENOSPC, "No space left on device")
    assert patiently(failing(6, full), tmp_path) == "written"
    assert waits == [1, 2, 4, 8, 16, 30]


def test_patience_ends_with_the_path_and_the_free_space(tmp_path, waits):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StoreUnavailable, match=r"part: could not be written .* MiB free there"):
        patiently(failing(10**6, full), tmp_path / "none" / "part")
    assert sum(waits) >= patience.PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "give this user the right, then"),
        (errno.EPERM, "give this user the right, then"),
        (errno.EROFS, "it is mounted for reading: mount it for writing, then"),
        (errno.EKEYEXPIRED, "a key that this user has not: renew it, then"),
    ],
)
def test_what_a_person_must_mend_is_said_at_once(tmp_path, waits, number, advice):
    refused = OSError(number, os.strerror(number))
    with pytest.raises(StoreRefused, match=f"cannot be written .* no waiting .*{advice}") as said:
        patiently(failing(1, refused), tmp_path / "part")
    assert str(tmp_path / "part") in str(said.value)
    assert isinstance(said.value, UserError)
    assert waits == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EINVAL, errno.ENAMETOOLONG])
def test_another_error_is_raised_as_it_is(tmp_path, waits, number):
    with pytest.raises(OSError, match=os.strerror(number)) as said:
        patiently(failing(1, OSError(number, os.strerror(number))), tmp_path)
    assert not isinstance(said.value, (StoreRefused, StoreUnavailable))
    assert waits == []


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(n, os.strerror(n)) for n in (errno.ESTALE, errno.EDQUOT, errno.ENETUNREACH)),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("no number"),
        OSError("Arrow: No space left on device"),
    ],
)
def test_what_may_pass_is_waited_for(tmp_path, waits, error):
    assert patiently(failing(1, error), tmp_path) == "written"
    assert waits == [1]


def test_no_one_waits_again_for_what_has_been_waited_for(tmp_path, waits):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StoreUnavailable):
        patiently(lambda: patiently(failing(10**6, full), tmp_path), tmp_path)
    assert sum(waits) < 2 * patience.PATIENCE_SECONDS


def test_a_process_says_since_when_it_waits_and_that_it_no_longer_does(tmp_path, monkeypatch):
    waiting, go_on = threading.Event(), threading.Event()

    def sleep(_):
        waiting.set()
        assert go_on.wait(30)

    monkeypatch.setattr(patience.time, "sleep", sleep)
    assert waiting_since() is None
    before = time.monotonic()
    write = failing(1, OSError(errno.EIO, "Input/output error"))
    thread = threading.Thread(target=patiently, args=(write, tmp_path))
    thread.start()
    assert waiting.wait(30)
    assert before <= waiting_since() <= time.monotonic()
    assert patiently(lambda: "another thread is not kept", tmp_path)
    assert waiting_since() is not None
    go_on.set()
    thread.join(30)
    assert waiting_since() is None


def test_it_no_longer_waits_once_it_has_given_up(tmp_path, waits):
    with pytest.raises(StoreUnavailable):
        patiently(failing(10**6, OSError(errno.EIO, "Input/output error")), tmp_path)
    assert waits
    assert waiting_since() is None


def test_a_request_that_lasts_is_told_of_once_and_a_quick_one_is_not(monkeypatch):
    told = queue.Queue()
    monkeypatch.setattr(logging.getLogger(patience.__name__), "warning", lambda *a: told.put(a))
    with telling_of_silence("az://bucket/quick"):
        pass
    monkeypatch.setattr(patience, "SILENCE_SECONDS", 0.01)
    with telling_of_silence("az://bucket/x"):
        words, *values = told.get(timeout=30)
    with telling_of_silence("az://bucket/x"), telling_of_silence("az://bucket/y"):
        _, other, _ = told.get(timeout=30)
    assert other == "az://bucket/y"
    assert words % tuple(values) == "az://bucket/x: no answer in 0 s; its client goes on trying"
    assert told.empty()


@pytest.mark.usefixtures("waits")
def test_a_part_survives_a_full_disk_whole_and_once(tmp_path, monkeypatch):
    run = make_run(steps=3)
    folder = RunFolder(tmp_path / run.run_id)
    folder.path.mkdir()
    writer = RunWriter(run, folder, LoneAttempt())
    row = {"loss": 1.0, "scheduled_learning_rate": 0.1, "grad_norm": 1.0, "clip_coefficient": 1.0}
    real, calls = pa.parquet.write_table, []

    def write_table(table, path, **options):
        calls.append(path)
        real(table, path, **options)
        if len(calls) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa.parquet, "write_table", write_table)
    writer.add("steps", 1, [{**row, "targets": 4}])
    writer.finish("finished", 1)
    assert len(calls) == 3
    (part,) = folder.parts("steps")
    assert pa.parquet.read_metadata(part).num_rows == 1
    assert [path.name for path in (folder.path / "steps").iterdir()] == [part.name]
