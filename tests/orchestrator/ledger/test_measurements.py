"""What is left to measure of a sweep, and what a user may ask of it."""

import pytest
from planted_measurements import record_distance, record_result
from planted_store import run_spec, save_sweep, write_run

from orchestrator.ledger.recovery import Choice, decide, decide_measurements, ledger
from sweeps.files.whole_files import write_json
from sweeps.spec import measurements_of
from sweeps.store.store import Store
from sweeps.upkeep.audit import audit

RUNS = [run_spec("gpt2", objective) for objective in ("clm", "contrastive", "classification")]
PROPAGATION, MEASURED, REFUSED, FAILED = measurements_of(
    RUNS, ("propagation", "objective_distance")
)


@pytest.fixture
def store(tmp_path):
    """A propagation never tried, and of three distances one measured, one refused, one failed."""
    store = Store.at(str(tmp_path / "store"))
    record_distance(store, MEASURED.run, [0.5])
    record_result(store, REFUSED, {"refused": "it has no head"})
    attempt = {"started": "2026-11-23T10:00:00+00:00", "node": "there", "cause": "failed"}
    write_json(store.work(FAILED.work_id).attempt_path(1), {**attempt, "error": "Oops: broken"})
    return store


def actions(store, choice=Choice()):  # noqa: B008
    wanted = [PROPAGATION, MEASURED, REFUSED, FAILED]
    found = decide_measurements(wanted, ledger(store), choice)
    return [(one.kind, one.why, one.again) for one in found]


def test_what_has_no_result_is_measured_and_a_refusal_is_one(store):
    assert actions(store) == [
        ("measure", "new", False),
        ("skip", "finished", False),
        ("skip", "finished", False),
        ("measure", "failed", False),
    ]


def test_only_one_run_leaves_measurements_alone(store):
    assert {kind for kind, *_ in actions(store, Choice(RUNS[0].run_id))} == {"skip"}


def test_only_a_state_is_of_measurements_too(store):
    """What failed is done again, whatever it is."""
    states = {why: kind for kind, why, _ in actions(store, Choice("failed"))}
    assert states.pop("failed") == "measure"
    assert set(states.values()) == {"skip"}


def test_one_measurement_or_one_kind_is_chosen_and_runs_are_left_alone(store):
    chosen = actions(store, Choice(PROPAGATION.work_id))
    assert [kind for kind, *_ in chosen] == ["measure", "skip", "skip", "skip"]
    assert actions(store, Choice("objective_distance"))[0][1] == "waiting, not asked for"
    assert actions(store, Choice("objective_distance"))[3][0] == "measure"
    runs = decide(RUNS, ledger(store), Choice("objective_distance"))
    assert {action.kind for action in runs} == {"skip"}


def test_a_result_is_made_again_by_force_alone(store):
    assert actions(store, Choice(REFUSED.work_id))[2] == ("skip", "finished", False)
    forced = actions(store, Choice(REFUSED.work_id, force=True))
    assert forced[2] == ("measure", "measured again as asked", True)


def test_other_readers_of_a_store_pass_measurements_by(store):
    write_run(store, RUNS[0], [0.1, 0.2])
    save_sweep(store, "toy", RUNS[:1])
    assert [folder.run_id for folder in store.runs()] == [RUNS[0].run_id]
    assert store.strays() == []
    assert len(store.measurements()) == 3
    assert [finding.what for finding in audit(store)] == []


def test_doctor_finds_and_drops_a_result_that_cannot_be_read(store):
    path = store.work(MEASURED.work_id).path / "DONE.json"
    path.write_text(path.read_text()[:-20])
    (finding,) = audit(store)
    assert (finding.run_id, finding.what) == (MEASURED.work_id, "DONE.json cannot be read")
    finding.mend()
    assert list(audit(store)) == []
    assert actions(store)[1][:2] == ("measure", "new")
