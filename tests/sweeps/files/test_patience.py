import errno

import pyarrow as pa
import pytest
from small_run import make_run

from sweeps.files import patience
from sweeps.files.patience import StoreUnavailable, patiently
from sweeps.store.store import RunFolder
from sweeps.store.writer import RunWriter


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


def test_an_error_that_will_not_pass_is_raised_at_once(tmp_path, waits):
    with pytest.raises(PermissionError):
        patiently(failing(1, PermissionError(errno.EACCES, "Permission denied")), tmp_path)
    assert waits == []


@pytest.mark.usefixtures("waits")
def test_a_part_survives_a_full_disk_whole_and_once(tmp_path, monkeypatch):
    run = make_run(steps=3)
    folder = RunFolder(tmp_path / run.run_id)
    writer = RunWriter(run, folder, lambda: None)
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
