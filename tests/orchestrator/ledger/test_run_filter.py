import pytest
from planted_store import run_spec

from orchestrator.ledger.run_filter import matching, parse_where, require_known
from sweeps.declaration.settings import settings_of
from sweeps.errors import UserError
from sweeps.spec import LayerClip

RUNS = [
    run_spec(model, "mlm", control, seed, learning_rate=rate)
    for model in ("opt-a", "opt-b")
    for control in ("standard", LayerClip(max_norm=0.25))
    for seed in (3, 4)
    for rate in (1e-3, 5e-5)
]


def found(said, states=None):
    state_of = (states or {}).get
    conditions = parse_where(said)
    require_known(RUNS, conditions)
    return matching(RUNS, conditions, lambda run_id: state_of(run_id, "waiting"))


def test_conditions_of_one_name_are_alternatives_and_of_several_must_all_hold():
    kept = found("model=opt-b, seed=3,learning_rate=0.00005")
    assert [(r.model.name, r.seed, r.optimizer.learning_rate) for r in kept] == [
        ("opt-b", 3, 5e-5)
    ] * 2
    assert found("seed=3,seed=4") == RUNS
    assert {run.seed for run in found("seed!=3")} == {4}
    assert {run.control.kind for run in found("max_norm=none")} == {"standard"}


def test_every_setting_of_a_run_can_be_asked_for():
    for one in settings_of():
        value = one.value(RUNS[-1])
        assert RUNS[-1] in found(f"{one.name}={value}"), one.name


def test_the_state_is_asked_only_of_runs_for_which_all_else_holds():
    asked = []

    def state_of(run_id):
        asked.append(run_id)
        return "failed"

    kept = matching(RUNS, parse_where("status=failed,seed=3,model=opt-a"), state_of)
    assert len(kept) == 4
    assert asked == [run.run_id for run in kept]


def test_a_run_is_found_by_its_id():
    assert found(f"run_id={RUNS[5].run_id}") == [RUNS[5]]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("modle=gpt2", "no setting of a run; did you mean 'model'"),
        ("status=fialed", "no state; did you mean 'failed'"),
        ("model=opt-c", "no run has that; did you mean 'opt-"),
        ("seed", "write name=value"),
        ("learning_rate=fast", "no run has that"),
    ],
)
def test_what_no_run_can_have_is_refused_with_the_nearest(said, message):
    with pytest.raises(UserError, match=message):
        found(said)
