import pytest

from orchestrator.recovery import decide
from sweeps.expand import read_sweep

RUNS = read_sweep("sweeps/library/demo.yaml").runs[:3]


def decided(done=None, attempts=None):
    done, attempts = done or {}, attempts or {}
    actions = decide(RUNS, done.get, lambda run_id: attempts.get(run_id, []))
    return [(action.kind, action.reason) for action in actions]


def test_what_was_never_tried_runs():
    assert decided() == [("run", "new")] * 3


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_a_result_is_not_computed_again(status):
    assert decided({RUNS[1].run_id: {"status": status}})[1] == ("skip", status)


@pytest.mark.parametrize(
    ("cause", "reason"),
    [("failed", "failed"), ("cancelled", "cancelled"), (None, "lost")],
)
def test_an_attempt_without_a_result_starts_over_and_says_why(cause, reason):
    tries = {RUNS[0].run_id: [{"cause": "failed"}, {"cause": cause}]}
    assert decided(attempts=tries)[0] == ("run", f"its last attempt was {reason}")
