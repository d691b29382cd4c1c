"""A run as a whole: what goes together, and what follows from its parts."""

import pytest
from planted_store import run_spec
from pydantic import ValidationError

from sweeps.spec import (
    BuiltinData,
    EqualStep,
    Evaluation,
    Execution,
    FolderModel,
    High,
    HubModel,
    Judge,
    LayerClip,
    LengthMatched,
    Lora,
    ModelSpec,
    Objective,
    Optimizer,
    PromptSet,
    Refusal,
    RunSpec,
    Stop,
    Tuned,
    measurements_of,
)

HELD_OUT = BuiltinData(builtin="python-docs", digest="e")


def made(**changes):
    """Return a validated run: causal language modelling, 20 steps of 8, probed every 10."""
    run = run_spec()
    return RunSpec(**{**{name: getattr(run, name) for name in RunSpec.model_fields}, **changes})


def model(**said):
    source = {"hub": "somebody/gpt2", "revision": "0" * 40, "pretraining": "clm"}
    return ModelSpec(name="gpt2", source=HubModel(**{**source, **said}))


def objective(kind):
    return run_spec(objective=kind).objective


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": objective("mlm")}, "objective mlm does not fit model gpt2"),
        ({"model": model(pretraining="mlm")}, "objective clm does not fit model gpt2"),
        (
            {"model": model(pretraining="mlm"), "objective": Objective(kind="sft", data=HELD_OUT)},
            "objective sft is for decoders",
        ),
        (
            {
                "control": LayerClip(max_norm=1.0),
                "optimizer": Optimizer(learning_rate=1e-3, max_grad_norm=1.0),
            },
            "layer_clip and max_grad_norm both clip the gradient",
        ),
        (
            {"model": model(freeze=("embedding",)), "adapter": Lora()},
            "an adapter and freeze of model gpt2 both say what is trained",
        ),
        (
            {"adapter": Lora(), "control": EqualStep(unit="matrix")},
            "equal_step with unit matrix and target mean does not go with an adapter",
        ),
        (
            {"objective": objective("contrastive"), "batch_size": 1},
            "contrastive needs batch_size of at least 2",
        ),
        ({"execution": Execution(micro_batch_size=3)}, "micro_batch_size 3 must divide batch_size"),
        ({"execution": Execution(processes=3)}, "3 processes must divide batch_size 8"),
        (
            {"execution": Execution(processes=4, micro_batch_size=4)},
            "4 processes must divide batch_size 8 into shares of whole micro-batches of 4",
        ),
        ({"execution": Execution(keep="best")}, "keep: best .* add `evaluation`"),
        (
            {"optimizer": Optimizer(learning_rate=1e-3, warmup_steps=20)},
            "warmup_steps 20 must be below steps 20",
        ),
        ({"steps": 9}, r"probe\.every 10 is beyond steps 9"),
        ({"evaluation": Evaluation(fraction=0.1, every=21)}, r"evaluation\.every 21 is beyond"),
        ({"record_every": 21}, r"record_every 21 is beyond steps 20: lower it"),
        (
            {"record_every": 2, "tuned": Tuned(digest="d", place="p")},
            "record_every does nothing for a checkpoint that was trained elsewhere",
        ),
        ({"stop": Stop(over=1)}, "no_improvement is of an evaluation"),
        (
            {"evaluation": Evaluation(fraction=0.1), "stop": Stop(over=2)},
            r"no_improvement over 2 never ends a run that is evaluated 2 times after step 0",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        made(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": model(pretraining="mlm"), "objective": objective("mlm")},
        {"objective": Objective(kind="sft", data=HELD_OUT)},
        {"control": LayerClip(max_norm=1.0)},
        {"optimizer": Optimizer(learning_rate=1e-3, max_grad_norm=1.0)},
        {"adapter": Lora(), "control": EqualStep(unit="matrix", target="learning_rate")},
        {"adapter": Lora(), "control": EqualStep()},
        {"control": EqualStep(unit="matrix")},
        {"model": model(freeze=("embedding",))},
        {"objective": objective("contrastive"), "batch_size": 2},
        {"batch_size": 1},
        {"execution": Execution(processes=2, micro_batch_size=4)},
        {"execution": Execution(keep="best"), "evaluation": Evaluation(fraction=0.1)},
        {"steps": 10},
        {"record_every": 20},
        {"evaluation": Evaluation(fraction=0.1, every=20)},
        {"evaluation": Evaluation(fraction=0.1), "stop": Stop(over=1)},
    ],
)
def test_what_does_go_together_is_taken(changes):
    run = made(**changes)
    assert all(getattr(run, name) == value for name, value in changes.items())


@pytest.mark.parametrize(
    ("steps", "every", "found"),
    [(20, 10, (10, 20)), (20, 20, (20,)), (20, None, (20,)), (19, 10, (10, 19)), (3, 1, (1, 2, 3))],
)
def test_states_are_compared_every_so_often_and_after_the_last_step(steps, every, found):
    probe = run_spec().probe.model_copy(update={"every": every})
    assert made(steps=steps, probe=probe).probe_steps == found


@pytest.mark.parametrize(
    ("every", "found"), [(None, (0, 10, 20)), (8, (0, 8, 10, 16, 20)), (20, (0, 10, 20))]
)
def test_scores_come_at_the_beginning_with_the_probes_and_as_often_as_is_said(every, found):
    assert made().evaluation_steps == ()
    assert made(evaluation=Evaluation(fraction=0.1, every=every)).evaluation_steps == found


def test_what_a_run_may_end_with_is_recorded_whatever_the_interval():
    run = made(record_every=7, evaluation=Evaluation(fraction=0.1, every=8))
    assert run.recorded_steps.until(20) == [1, 7, 8, 10, 14, 16, 20]


def test_recording_some_steps_is_another_run_and_recording_all_is_not():
    once, probe = made(), run_spec().probe.model_copy(update={"every": 1})
    assert "record_every" not in once.identity()
    assert once.run_id == made(record_every=1).run_id != made(record_every=2).run_id
    assert made(probe=probe).run_id == made(probe=probe, record_every=2).run_id
    assert made(steps=10).run_id != made(steps=10, record_every=10).run_id


def test_a_probe_at_the_last_step_alone_is_the_default_however_it_is_said():
    ids = {
        every: made(probe=run_spec().probe.model_copy(update={"every": every})).run_id
        for every in (None, 10, 20)
    }
    assert ids[None] == ids[20] != ids[10]


def test_an_evaluation_that_adds_no_step_to_the_probes_is_no_other_run():
    ids = {
        every: made(evaluation=Evaluation(fraction=0.1, every=every)).run_id
        for every in (None, 5, 10, 20)
    }
    assert ids[None] == ids[10] == ids[20] != ids[5]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, False),
        ({"adapter": Lora()}, False),
        ({"adapter": Lora(targets=("c_attn",))}, True),
        ({"model": model(freeze=("embedding",))}, True),
    ],
)
def test_only_names_of_layers_say_what_is_trained(changes, says):
    assert made(**changes).says_what_is_trained is says


@pytest.mark.parametrize(
    ("execution", "size"),
    [({}, 8), ({"processes": 2}, 4), ({"processes": 2, "micro_batch_size": 2}, 2)],
)
def test_a_pass_is_of_a_micro_batch_or_of_a_processs_share(execution, size):
    assert made(execution=Execution(**execution)).micro_batch_size == size


def test_all_that_a_run_reads_is_named():
    run = made(evaluation=Evaluation(data=HELD_OUT))
    assert run.datasets == {
        "dataset": run.objective.data,
        "probe": run.probe.data,
        "evaluation": HELD_OUT,
    }
    asked = PromptSet(name="mine", data=HELD_OUT, kind="benign")
    answers = made(evaluation=Evaluation(fraction=0.1, refusal=Refusal(prompts=(asked,))))
    assert set(answers.datasets) == {"dataset", "probe", "prompts mine"}
    assert answers.datasets["prompts mine"] == HELD_OUT
    assert set(made(evaluation=Evaluation(fraction=0.1)).datasets) == {"dataset", "probe"}
    assert set(made().datasets) == {"dataset", "probe"}


def test_answers_have_the_judge_that_is_named_for_them_and_no_other_run_has_one():
    asked = PromptSet(name="mine", data=HELD_OUT, kind="benign")
    judge = Judge(name="strict", source=made().model.source)
    refusals = [Refusal(prompts=(asked,)), Refusal(prompts=(asked,), judge=(judge,))]
    evaluations = [None, *(Evaluation(fraction=0.1, refusal=one) for one in (None, *refusals))]
    found = [made(evaluation=one).judges for one in evaluations]
    assert found == [(), (), (), (judge,)]


def test_a_copy_that_was_asked_for_its_id_gives_its_own():
    run = made()
    before = run.run_id
    assert run.model_copy(update={"seed": 7}).run_id != before
    assert run.model_copy().run_id == before == run.run_id


def test_a_measurement_is_said_with_its_objective_where_that_decides_it():
    kinds = ("propagation", "objective_distance")
    labels = [one.label for one in measurements_of([made()], kinds)]
    assert sum(" clm" in label for label in labels) == 1
    assert all(" of gpt2" in label for label in labels)


def test_a_copy_shares_the_parts_that_were_not_replaced():
    run = made()
    copy = run.model_copy(update={"seed": 7})
    assert copy.objective is run.objective
    assert run.model_copy(deep=True).objective is not run.objective


def test_a_key_but_for_the_seed_is_by_the_values_of_numbers_and_by_which_parts():
    run = made()
    steps = int("1000")
    key = run.model_copy(update={"steps": steps}).but_for_the_seed()
    again = run.model_copy(update={"seed": 9, "steps": int("1000")})
    assert again.but_for_the_seed() == key != run.but_for_the_seed()
    other = run.model_copy(update={"objective": objective("mlm")})
    assert other.but_for_the_seed() != run.but_for_the_seed()


def test_a_run_is_described_by_what_people_call_its_parts():
    assert made().describe() == "gpt2 clm standard seed 0"
    clipped = made(control=LayerClip(max_norm=0.5), seed=3)
    assert clipped.describe() == f"gpt2 clm layer_clip({clipped.control.setting}) seed 3"
    assert "0.5" in clipped.control.setting


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": objective("contrastive"), "selection": High()},
            "selection high needs a loss of each example",
        ),
        ({"selection": LengthMatched()}, "selection length_matched is random for objective clm"),
        (
            {
                "objective": objective("classification"),
                "evaluation": Evaluation(
                    fraction=0.1,
                    refusal=Refusal(prompts=(PromptSet(name="p", data=HELD_OUT, kind="benign"),)),
                ),
            },
            "refusal has the model write answers, which objective classification",
        ),
    ],
)
def test_a_selection_or_prompts_that_the_objective_has_nothing_for_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        made(**changes)


def test_parts_begin_after_the_last_step_of_the_one_before():
    run = made(execution=Execution(part_steps=6))
    assert [run.part_of(step) for step in (1, 6, 7, 12, 13, 20)] == [
        *((0, 6), (0, 6), (6, 12)),
        *((6, 12), (12, 18), (18, 20)),
    ]


def test_neither_pickles_nor_code_of_a_model_are_trusted_unless_that_is_said():
    for source in (
        model().source,
        FolderModel(folder="/m", digest="0" * 64, pretraining="clm"),
    ):
        assert (source.pickled_weights, source.trust_remote_code) == (False, False)
