"""What a node of a cluster says of the store."""

from pathlib import Path

import pytest

from orchestrator.connection.store_probe import complaint
from sweeps.declaration.expand import read_sweep
from sweeps.store.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store.at(str(tmp_path / "store"))
    store.save_sweep(read_sweep("sweeps/library/demo.yaml"))
    return store


def test_a_store_that_a_node_shares_is_fine_and_left_as_it_was(store):
    before = sorted(store.root.rglob("*"))
    assert complaint(str(store.root), "demo") is None
    assert sorted(store.root.rglob("*")) == before


def test_a_path_that_a_node_does_not_share_is_told_from_one_it_does(tmp_path):
    assert "not the store that the driver sees" in complaint(str(tmp_path / "other"), "demo")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_a_node_cannot_write_is_told(store, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("orchestrator.connection.store_probe.write_text", refuse)
    assert "cannot be written there: [Errno 13]" in complaint(str(store.root), "demo")


def test_something_that_is_no_store_is_told():
    assert "is a file" in complaint(str(Path("pyproject.toml").absolute()), "demo")
