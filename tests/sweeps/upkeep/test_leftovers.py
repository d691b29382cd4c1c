import os
import socket
import time
from pathlib import Path

import pytest
from filelock import FileLock

from sweeps.store.store import Store
from sweeps.upkeep.leftovers import CACHED, MIRRORS, SCRATCH, leftovers
from sweeps.upkeep.rubbish import TEMPORARIES

DAY = 86_400


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_CACHE", str(tmp_path / "node"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    store = Store.at(str(tmp_path / "store"))
    store.identify()
    return store


def write(path, days, text="x" * 10):
    """Write a file that was last used so many days ago, and let its folders say so, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    when = time.time() - days * DAY
    os.utime(path, (when, when))
    os.utime(path.parent, (when, when))
    return path


def found(store, days=None):
    return [(item.what, Path(item.where).name) for item in leftovers(store, days)]


def test_what_is_cached_goes_once_it_was_unused_for_so_many_days(store):
    write(store.cache / "tokens" / "a.safetensors", 9)
    write(store.cache / "tokens" / "a.lock", 9)
    write(store.cache / "tokens" / "b.safetensors", 2)
    write(store.cache / "standins" / "gpt2-00" / "config.json", 9)
    write(store.cache / "newroom" / "entry", 9)
    assert found(store) == []
    assert found(store, 20) == []
    assert sorted(found(store, 5)) == [
        (CACHED, "a.safetensors"),
        (CACHED, "entry"),
        (CACHED, "gpt2-00"),
    ]
    for item in leftovers(store, 5):
        assert item.remove()
    assert sorted(path.name for path in store.cache.rglob("*") if path.is_file()) == [
        "a.lock",
        "b.safetensors",
    ]


def test_what_was_read_meanwhile_stays(store):
    path = write(store.cache / "tokens" / "a.safetensors", 9)
    (item,) = leftovers(store, 5)
    os.utime(path)
    assert not item.remove()
    assert path.exists()


def test_what_a_killed_writer_left_beside_the_runs_goes(store):
    left = write(store.root / "sweeps" / "s" / ".spec.yaml.42-0123456789abcdef.tmp", 1)
    folder = write(store.root / "cache" / "standins" / ".g.42-0123456789abcdef" / "w", 1)
    write(store.root / "tensorboard" / "s" / ".of-another-program.tmp", 1)
    write(store.root / "sweeps" / "s" / ".spec.yaml.43-0123456789abcdef.tmp", 0)
    items = list(leftovers(store))
    assert {item.what for item in items} == {TEMPORARIES}
    assert sorted(item.where for item in items) == sorted([str(left), str(folder.parent)])


def test_a_copy_of_a_store_goes_when_nobody_has_read_it_for_a_month(store, tmp_path):
    write(tmp_path / "node" / "mirrors" / "aa" / "runs.json", 40)
    write(tmp_path / "node" / "mirrors" / "bb" / "runs.json", 3)
    assert found(store) == [(MIRRORS, "aa")]
    assert found(store, 2) == [(MIRRORS, "aa"), (MIRRORS, "bb")]
    (item,) = leftovers(store)
    with FileLock(tmp_path / "node" / "mirrors" / "aa.lock"), pytest.raises(OSError, match="use"):
        item.remove()
    assert item.remove()


def test_scratch_goes_unless_it_is_young_open_or_listened_at(store, tmp_path, monkeypatch):
    place = tmp_path / "tmp"
    write(place / "depthsweep-old" / "part.parquet", 9)
    write(place / "depthsweep-young" / "part.parquet", 2)
    write(place / "of-another" / "file", 9)
    held = write(place / "depthsweep-held" / "part.parquet", 9)
    with socket.socket(socket.AF_UNIX) as listening, held.open() as _:
        os.mkdir(place / "depthsweep-0")
        monkeypatch.chdir(place)  # an address has 108 characters at most
        listening.bind("depthsweep-0/s")
        old = time.time() - 9 * DAY
        for path in (held, place / "depthsweep-0" / "s", place / "depthsweep-0"):
            os.utime(path, (old, old))
        assert found(store) == [(SCRATCH, "depthsweep-old")]
    assert (SCRATCH, "depthsweep-held") in found(store)


def test_an_object_store_has_leftovers_on_this_node_only(s3_url, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Store.at(s3_url)
    store.identify()
    write(store.cache / "tokens" / "a.safetensors", 9)
    store.reading()
    assert found(store) == []
    assert found(store, 5) == [(CACHED, "a.safetensors")]
