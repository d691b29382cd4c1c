import pytest

from orchestrator.ledger import recovery
from orchestrator.ledger.recovery import (
    EVERYTHING,
    Choice,
    Standing,
    decide,
    decide_measurements,
    ledger,
    ledger_of,
    works_of,
)
from sweeps.declaration.expand import read_sweep
from sweeps.files.whole_files import write_json
from sweeps.liveness.process import identity
from sweeps.store.store import Store

SWEEP = read_sweep("sweeps/library/demo.yaml")
RUNS = SWEEP.runs[:3]
FIRST, SECOND, _ = (run.run_id for run in RUNS)


def decided(standings=None, choice=EVERYTHING):
    standings = standings or {}
    actions = decide(RUNS, lambda run_id: standings.get(run_id, Standing("waiting")), choice)
    return [(action.kind, action.reason) for action in actions]


def test_what_was_never_tried_runs():
    assert decided() == [("run", "new")] * 3


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_a_result_is_not_computed_again(status):
    assert decided({SECOND: Standing(status)})[1] == ("skip", status)


@pytest.mark.parametrize("state", ["failed", "cancelled", "preempted", "lost"])
@pytest.mark.parametrize(("step", "origin"), [(0, "the start"), (40, "step 40")])
def test_an_attempt_without_a_result_continues_and_says_from_where(state, step, origin):
    assert decided({FIRST: Standing(state, step)})[0] == (
        "run",
        f"{state}, continues from {origin}",
    )


def test_a_run_another_process_is_at_is_waited_for():
    kind, reason = decided({FIRST: Standing("running")})[0]
    assert kind == "run"
    assert "another process" in reason


def test_only_a_state_leaves_everything_else():
    standings = {FIRST: Standing("failed"), SECOND: Standing("finished")}
    kinds = [kind for kind, _ in decided(standings, Choice(only="failed"))]
    assert kinds == ["run", "skip", "skip"]


def test_a_result_runs_again_only_when_asked_in_words():
    standings = {FIRST: Standing("finished"), SECOND: Standing("diverged")}
    assert decided(standings, Choice(only=FIRST))[0] == ("skip", "finished")
    forced = decide(RUNS, lambda i: standings.get(i, Standing("waiting")), Choice(FIRST, True))
    assert [(a.kind, a.again) for a in forced] == [("run", True), ("skip", False), ("skip", False)]
    again = decide(RUNS, lambda i: standings.get(i, Standing("waiting")), Choice("diverged"))
    assert [(a.kind, a.again) for a in again] == [("skip", False), ("run", True), ("skip", False)]


@pytest.mark.parametrize(
    ("attempts", "state"),
    [
        ([], "waiting"),
        ([{"cause": "failed"}], "failed"),
        ([{"cause": "failed"}, {"cause": "cancelled"}], "cancelled"),
        ([{"cause": "preempted"}], "preempted"),
        ([{"cause": "superseded"}], "cancelled"),
        # What had a result that is there no more.
        *[([{"cause": cause}], "lost") for cause in ("finished", "stopped", "diverged", "lost")],
        ([{"cause": None, **identity()}], "running"),
    ],
)
def test_the_ledger_is_read_from_the_stores_files(tmp_path, attempts, state):
    store = Store(tmp_path)
    folder = store.run(FIRST)
    for number, record in enumerate(attempts, start=1):
        write_json(folder.attempt_path(number), record)
    for step in (20, 40):
        write_json(folder.checkpoint_path(step) / "manifest.json", {})
    folder.checkpoint_path(60).mkdir()  # torn off before its manifest
    found = ledger(store)(FIRST)
    assert found.state == state
    assert found.checkpoint == (40 if attempts else 0)
    write_json(folder.path / "DONE.json", {"status": "diverged", "step": 60, "parts": {}})
    assert ledger(store)(FIRST).state == "diverged"


@pytest.mark.parametrize(
    ("states", "kinds"),
    [
        (("finished", "waiting", "lost"), ["skip", "run", "skip"]),
        (("failed", "finished", "waiting"), ["run", "skip", "skip"]),
        (("finished", "finished", "lost"), ["skip", "skip", "run"]),
    ],
)
def test_of_what_is_left_the_first_runs_and_what_is_skipped_does_not_count(states, kinds):
    standings = {run.run_id: Standing(state) for run, state in zip(RUNS, states, strict=True)}
    found = decided(standings, Choice(most=1))
    assert [kind for kind, _ in found] == kinds
    assert sum(why == "beyond the first 1" for _, why in found) == (kinds[-1] == "skip")


def test_what_a_sweep_has_are_its_runs_and_then_what_it_wants_measured(tmp_path):
    measured = [one.work_id for one in SWEEP.to_measure]
    assert measured
    assert works_of(SWEEP) == [*(run.run_id for run in SWEEP.runs), *measured]
    standing = ledger_of(Store(tmp_path), SWEEP)
    assert {standing(work_id).state for work_id in works_of(SWEEP)} == {"waiting"}


def test_all_that_has_to_be_watched_is_watched_at_once(tmp_path, monkeypatch):
    """Of another machine nobody here can tell; what has ended or a result is not asked about."""
    store, asked = Store(tmp_path), []
    elsewhere = {"cause": None, "node": "elsewhere", "pid": 1, "boot": "another"}
    open_ones = [run.run_id for run in RUNS]
    ended, done = "0123456789ab", "ba9876543210"
    for run_id in (*open_ones, ended, done):
        record = {**elsewhere, "cause": "failed"} if run_id == ended else elsewhere
        write_json(store.run(run_id).attempt_path(1), record)
    closing = {"status": "finished", "step": 1, "parts": {}}
    write_json(store.run(done).path / "DONE.json", closing)

    def watched(folders):
        asked.append(sorted(folder.run_id for folder in folders))
        return {FIRST}

    monkeypatch.setattr(recovery, "alive_runs", watched)
    standing = ledger(store)
    states = [standing(run_id).state for run_id in (*open_ones, *open_ones, ended, done)]
    assert states == [*["running", "lost", "lost"] * 2, "failed", "finished"]
    assert asked == [sorted(open_ones)]


@pytest.mark.parametrize(
    ("state", "choice", "kind", "why", "again"),
    [
        ("waiting", EVERYTHING, "measure", "new", False),
        ("lost", EVERYTHING, "measure", "lost", False),
        ("finished", EVERYTHING, "skip", "finished", False),
        ("finished", Choice(force=True), "measure", "measured again as asked", True),
        ("finished", Choice(only="propagation", force=True), "measure", "measured again", True),
        ("failed", Choice(only="failed"), "measure", "failed", False),
        ("waiting", Choice(only="failed"), "skip", "waiting, not asked for", False),
        ("waiting", Choice(only=FIRST), "skip", "waiting, not asked for", False),
    ],
)
def test_a_measurement_is_made_once_and_again_only_when_asked_in_words(
    state, choice, kind, why, again
):
    one = next(one for one in SWEEP.to_measure if one.kind == "propagation")
    (action,) = decide_measurements([one], lambda _: Standing(state), choice)
    assert (action.measurement, action.kind, action.again) == (one, kind, again)
    assert action.why.startswith(why)
