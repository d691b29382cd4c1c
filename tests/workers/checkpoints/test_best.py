"""The checkpoint of the lowest evaluation loss stays, however many come after it."""

import pytest
from engine_cells import Cell, prepare
from small_run import LoneAttempt

from sweeps.files.whole_files import read_json
from sweeps.store.run_folder import RunFolder
from workers.checkpoints.saving import Checkpoints

LOSSES = {1: 3.0, 2: 2.0, 3: 2.5, 4: 2.0, 5: 2.4, 6: 2.2}


@pytest.fixture(scope="module")
def engine():
    return prepare(Cell("standard"), "plain")[1]


def saved(folder, engine, losses, keep="best"):
    """Save after every step; return which ones were the best so far."""
    best = []
    folder.path.mkdir(exist_ok=True)
    with Checkpoints(folder, engine, LoneAttempt(), keep=keep) as checkpoints:
        for step, loss in losses.items():
            if checkpoints.is_best(loss):
                best.append(step)
            checkpoints.save(step, evaluation_loss=loss)
        checkpoints.wait()
    return best


def test_the_earliest_of_the_lowest_stays_beside_the_two_newest(tmp_path, engine):
    folder = RunFolder(tmp_path / "run")
    assert saved(folder, engine, LOSSES) == [1, 2]
    assert folder.checkpoint_steps() == [2, 5, 6]
    kept = folder.kept("best")
    assert folder.step_of(kept) == 2
    assert read_json(kept / "manifest.json")["evaluation_loss"] == 2.0
    assert folder.step_of(folder.kept("final")) == 6
    assert folder.kept("none") is None
    folder.remove_unlisted("best")
    assert folder.checkpoint_steps() == [2]


def test_a_later_attempt_knows_what_was_best_before(tmp_path, engine):
    folder = RunFolder(tmp_path / "run")
    saved(folder, engine, {1: 3.0, 2: 2.0, 3: 2.5})
    assert saved(folder, engine, {4: 2.1, 5: 1.9, 6: 2.3}) == [5]
    folder.remove_unlisted("best")
    assert folder.checkpoint_steps() == [5]


def test_without_that_wish_nothing_is_the_best_and_the_newest_stay(tmp_path, engine):
    folder = RunFolder(tmp_path / "run")
    assert saved(folder, engine, LOSSES, keep="final") == []
    assert folder.checkpoint_steps() == [5, 6]
    with Checkpoints(folder, engine, LoneAttempt(), keep="best") as checkpoints:
        assert not checkpoints.is_best(None)


def test_where_nothing_was_evaluated_the_last_one_is_kept(tmp_path, engine):
    folder = RunFolder(tmp_path / "run")
    saved(folder, engine, {1: None, 2: None}, keep="final")
    assert folder.step_of(folder.kept("best")) == 2
