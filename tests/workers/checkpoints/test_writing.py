"""A checkpoint on its way: what it holds, how it is given up, and how it fails."""

import threading

import pytest
import torch

from sweeps.files.whole_files import no_guard
from workers.checkpoints import writing
from workers.checkpoints.spare_memory import spare_bytes
from workers.checkpoints.writing import Writing

LAYER = {"weights/a": torch.zeros(250)}  # 1000 bytes


@pytest.fixture
def gate(monkeypatch):
    """Nothing is written before it is set."""
    gate, write = threading.Event(), writing.write_layer

    def write_layer(*arguments):
        while not gate.wait(0.01):
            arguments[-1]()
        return write(*arguments)

    monkeypatch.setattr(writing, "write_layer", write_layer)
    yield gate
    gate.set()


def begin(folder, room=10_000, guard=no_guard):
    told = []
    return Writing(folder / "c", folder, room, guard, lambda _, files: told.append(files)), told


def test_whoever_adds_waits_only_where_there_is_no_room(tmp_path, gate):
    going, told = begin(tmp_path, room=2_500)
    for name in ("a", "b"):
        going.add(name, LAYER)
    third = threading.Thread(target=going.add, args=("c", LAYER))
    third.start()
    third.join(0.3)
    assert third.is_alive()
    gate.set()
    third.join(10)
    assert not third.is_alive()
    going.close()
    going.wait()
    assert sorted(told[0]) == ["a", "b", "c"]


def test_a_layer_larger_than_the_room_goes_alone(tmp_path):
    going, told = begin(tmp_path, room=10)
    for name in ("a", "b"):
        going.add(name, LAYER)
    going.close()
    going.wait()
    assert sorted(told[0]) == ["a", "b"]


@pytest.mark.usefixtures("gate")
def test_what_is_dropped_is_in_place_nowhere(tmp_path):
    going, told = begin(tmp_path)
    going.add("a", LAYER)
    going.drop()
    assert told == [None]
    assert not going.goes_on
    going.wait()  # is no error
    assert not (tmp_path / "c" / "a").exists()


def test_an_error_is_told_and_raised(tmp_path):
    def superseded():
        raise KeyError("another's")

    going, told = begin(tmp_path, guard=superseded)
    going.add("a", LAYER)
    going.close()
    with pytest.raises(KeyError, match="another's"):
        going.wait()
    with pytest.raises(KeyError):
        going.check()
    assert told == [None]


def test_a_folder_that_was_removed_is_not_made_anew(tmp_path):
    folder = tmp_path / "run"
    going, _ = begin(folder)
    going.add("a", LAYER)
    going.close()
    with pytest.raises(FileNotFoundError):
        going.wait()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, 500 * 1024), ("max", 500 * 1024), ("300000", 125_000), ("100000", 25_000)],
)
def test_copies_take_half_of_what_machine_and_container_have_left(
    tmp_path, monkeypatch, limit, expected
):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 9000 kB\nMemAvailable:    1000 kB\n")
    if limit:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("90000")
        (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 40000\n")
    assert spare_bytes(1, memory, tmp_path) == expected
    assert spare_bytes(4, memory, tmp_path) == expected // 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert spare_bytes(16, memory, tmp_path) == expected // 2
