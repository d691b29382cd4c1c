"""A run whose attempt was cut off after its result and before its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_store import run_spec, write_run

from sweeps.attempts.attempt import Attempt
from sweeps.attempts.left_open import finish_off
from sweeps.files.whole_files import read_json, write_json
from sweeps.store.run_folder import RunFolder
from sweeps.store.store import Store
from sweeps.upkeep.audit import audit

RUN = run_spec(seed=3, steps=20, part_steps=5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.at(str(tmp_path / "s"))
    store.identify()
    return store


def cut_off(store: Store, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Return the folder of a finished run with its parts before they were put together."""
    monkeypatch.setattr(RunFolder, "remove_unlisted", lambda *_, **__: None)
    folder = write_run(store, RUN, [0.1, 0.2], in_parts=True)
    monkeypatch.undo()
    path = folder.attempt_path(1)
    write_json(path, {**read_json(path), "cause": None, "ended": None, "pid": 1 << 22})
    return folder


def test_what_it_left_goes_and_its_end_is_recorded(store: Store, monkeypatch) -> None:
    folder = cut_off(store, monkeypatch)
    closing, parts = folder.done(), len(folder.parts("steps"))
    assert parts > 1
    assert finish_off(store, [RUN, run_spec(seed=4)]) == [RUN.run_id]
    assert folder.done() == closing
    assert len(folder.parts("steps")) == 1
    newest = folder.newest_attempt()
    assert newest is not None
    assert newest["cause"] == "lost"
    assert [one.what for one in audit(store) if "no record" in one.what] == []
    assert finish_off(store, [RUN]) == []


def test_one_that_is_at_its_end_just_now_is_left_alone(store: Store) -> None:
    folder = write_run(store, RUN, [0.1, 0.2])
    with Attempt(folder) as attempt:
        assert finish_off(store, [RUN]) == []
        attempt.end("not needed")
