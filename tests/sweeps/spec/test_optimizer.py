"""What an optimizer is said to be: its own options, its schedule, and the identity it has."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeps.spec import OPTIMIZERS, LayerRates, Optimizer, learning_rate
from sweeps.spec.training.optimizer import RULES


def rates(steps, **said):
    optimizer = Optimizer(learning_rate=2.0, **said)
    return [learning_rate(optimizer, step, steps) for step in range(1, steps + 1)]


@given(
    st.sampled_from(["linear", "constant", "cosine", "wsd"]),
    st.integers(3, 200),
    st.integers(0, 40),
    st.floats(0.01, 0.99),
)
def test_every_schedule_rises_to_its_peak_once_and_moves_at_every_step(kind, steps, warmup, share):
    share = {"decay_share": share} if kind == "wsd" else {}
    optimizer = Optimizer(learning_rate=2.0, schedule=kind, warmup_steps=warmup, **share)
    try:
        optimizer.require_steps(steps)
    except ValueError:
        return
    found = rates(steps, schedule=kind, warmup_steps=warmup, **share)
    assert all(0 < rate <= 2.0 for rate in found)
    assert found[:warmup] == sorted(found[:warmup])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
    assert found[warmup] == pytest.approx(2.0) or optimizer.decay_steps(steps) == steps - warmup


def test_cosine_is_half_way_down_in_the_middle_and_flat_at_both_ends():
    found = rates(101, schedule="cosine", warmup_steps=1)
    assert found[1] == 2.0
    assert found[51] == pytest.approx(1.0)
    assert found[1] - found[2] < 0.01
    assert 0 < found[-1] < 0.001


def test_wsd_is_constant_until_its_last_steps():
    assert rates(10, schedule="wsd", warmup_steps=2, decay_share=0.4) == pytest.approx(
        [2 / 3, 4 / 3, 2, 2, 2, 2, 1.6, 1.2, 0.8, 0.4]
    )


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_options_that_are_not_said_are_the_rules_own_and_come_back(rule):
    one = Optimizer(rule=rule, learning_rate=0.1)
    for name, value in RULES[rule].options.items():
        assert getattr(one, name) == value
    again = Optimizer.model_validate_json(one.model_dump_json())
    assert again == one
    assert ("rule" in one.identity()) == (rule != "adamw")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rule": "sgd", "eps": 1e-8}, "eps does nothing with sgd; it goes with adamw, muon"),
        ({"momentum": 0.9}, "momentum does nothing with adamw; it goes with sgd, muon"),
        ({"rule": "adafactor", "betas": (0.9, 0.95)}, "betas does nothing with adafactor"),
        ({"decay_share": 0.1}, "decay_share does nothing with linear; it goes with wsd"),
        ({"rule": "lion", "betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\)"),
    ],
)
def test_what_would_do_nothing_is_refused(said, message):
    with pytest.raises(ValidationError, match=message):
        Optimizer(learning_rate=1.0, **said)


def test_a_schedule_has_to_fit_into_the_steps():
    optimizer = Optimizer(learning_rate=1.0, schedule="wsd", warmup_steps=6, decay_share=0.5)
    optimizer.require_steps(12)
    with pytest.raises(ValueError, match=r"warmup_steps 6 and the decay of wsd \(5 steps\)"):
        optimizer.require_steps(10)


def test_a_record_of_before_there_was_a_choice_decays_everything_and_keeps_its_identity():
    old = Optimizer.model_validate_json(json.dumps({"learning_rate": 1.0, "weight_decay": 0.1}))
    assert old.decay_all
    assert old.identity() == {"learning_rate": 1.0, "weight_decay": 0.1}
    new = old.model_copy(update={"decay_all": False})
    assert new.identity() == {"learning_rate": 1.0, "weight_decay": 0.1, "decay_all": False}


def test_only_the_rule_its_momentum_and_clipping_decide_memory():
    one = Optimizer(rule="sgd", learning_rate=0.1, weight_decay=0.3, schedule="cosine")
    assert one.for_memory() == Optimizer(rule="sgd", learning_rate=7.0).for_memory()
    plain = Optimizer(rule="sgd", learning_rate=0.1, momentum=0.0)
    assert plain.for_memory() != one.for_memory()
    clipped = Optimizer(rule="sgd", learning_rate=0.1, max_grad_norm=0.5)
    assert clipped.for_memory() != one.for_memory()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "one of them"),
        ({"rates": (0.5, 1.0), "decay": 0.5}, "one of them"),
        ({"rates": (1.0, 1.0)}, "does nothing; use standard"),
        ({"decay": 1.0}, "does nothing; use standard"),
        ({"rates": (0.0, 0.0)}, "use freeze"),
        ({"rates": (-1.0, 1.0)}, "greater than or equal to 0"),
    ],
)
def test_rates_of_layers_that_say_nothing_are_refused(said, message):
    with pytest.raises(ValidationError, match=message):
        LayerRates(**said)
