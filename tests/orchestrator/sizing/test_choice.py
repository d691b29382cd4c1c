"""How a run is cut is a pure choice: simplest first, within the memory of GPUs and machines."""

import pytest
from small_run import make_run

from orchestrator.sizing import choice
from orchestrator.sizing.choice import (
    LARGE,
    Host,
    choose,
    execution_text,
    placed,
    require_feasible,
)
from orchestrator.sizing.memory import GIB, estimate_memory, shape_of
from sweeps.errors import UserError
from sweeps.sources.catalog import CATALOG
from sweeps.spec import Execution, HubModel, ModelSpec, Optimizer


def large(name="pythia-6.9b", **execution):
    known = CATALOG[name]
    source = HubModel(hub=known.hub, revision=known.revision, pretraining="clm")
    return make_run(
        model=ModelSpec(name=name, source=source),
        batch_size=32,
        sequence_length=128,
        precision="bf16",
        execution=Execution(**execution),
    )


@pytest.mark.parametrize(
    ("gib", "gpus", "stage", "offload", "processes"),
    [
        (139, 1, 2, "none", 1),
        (78, 1, 2, "optimizer", 1),
        (78, 8, 2, "none", 2),
        (40, 8, 2, "none", 8),
        (8, 1, 3, "parameters", 1),
    ],
)
def test_the_largest_model_is_cut_no_more_than_it_must_be(gib, gpus, stage, offload, processes):
    chosen = choose(large(), gib * GIB, gpus)
    how = chosen.execution
    assert (how.zero_stage, how.offload, how.processes) == (stage, offload, processes)
    assert chosen.memory.total <= gib * GIB


def test_small_models_train_in_one_plain_process():
    chosen = choose(large("pythia-160m"), 78 * GIB, 8)
    assert execution_text(chosen.execution) == "plain, micro-batch 32"


def test_a_rank_takes_its_share_of_the_batch_at_once_where_that_fits():
    chosen = choose(large("pythia-160m", processes=4), 78 * GIB, 8)
    assert (chosen.execution.processes, chosen.execution.micro_batch_size) == (4, 8)


def test_what_a_run_says_is_kept():
    chosen = choose(large(zero_stage=3, processes=4, micro_batch_size=2), 78 * GIB, 8)
    assert (chosen.execution.zero_stage, chosen.execution.processes) == (3, 4)
    assert chosen.execution.micro_batch_size == 2


def test_nothing_fits_is_refused_with_the_numbers():
    with pytest.raises(UserError, match=r"at least \d+\.\d GiB of a GPU's 1\.6.*GiB\)"):
        choose(large(), 1.6 * GIB, 1)


def test_settings_no_machine_like_this_can_meet_are_refused():
    with pytest.raises(UserError, match="no way to carry it out on 2 GPUs"):
        choose(large(processes=8), 78 * GIB, 2)


def test_the_state_of_16_to_18_bytes_a_parameter_is_divided_by_stages():
    run = large()
    shape = shape_of(run)

    def state(**how):
        settled = Execution(engine="deepspeed", micro_batch_size=1, **how)
        terms = estimate_memory(run, shape, settled).terms
        names = ("weights", "gradients", "masters", "moments")
        return sum(terms.get(name, 0) for name in names) / shape.parameters

    assert state(processes=1, zero_stage=2, offload="none") == pytest.approx(18)
    assert state(processes=8, zero_stage=2, offload="none") == pytest.approx(2 + 16 / 8)
    assert state(processes=8, zero_stage=3, offload="none") == pytest.approx(18 / 8)
    # Gradients stay.
    assert state(processes=1, zero_stage=2, offload="optimizer") == pytest.approx(2 + 4)


def test_a_placement_changes_no_run_id_and_nothing_where_there_is_no_gpu():
    run = large()
    assert placed(run, 78 * GIB, 8).run_id == run.run_id
    assert placed(run, 78 * GIB, 8).execution != run.execution
    assert placed(run, None, 0) is run


@pytest.mark.parametrize(("node", "offload", "processes"), [(512, "optimizer", 1), (96, "none", 2)])
def test_offloading_needs_a_machine_that_holds_it(node, offload, processes):
    host = Host(node * GIB, 8)
    chosen = choose(large(zero_stage=2), 78 * GIB, 2 if offload == "none" else 1, host)
    assert (chosen.execution.offload, chosen.execution.processes) == (offload, processes)
    assert host.needs(chosen.memory, chosen.execution) <= host.bytes


def test_a_machine_that_holds_no_way_is_refused_with_the_numbers():
    told = r"needs \d+\.\d GiB of a machine's memory.*has 64\.0"
    with pytest.raises(UserError, match=told) as refused:
        choose(large(), 78 * GIB, 1, Host(64 * GIB, 1))
    assert len(str(refused.value)) < 300


def test_what_is_pinned_is_rounded_up_to_powers_of_two_layer_by_layer():
    how = Execution(engine="deepspeed", zero_stage=2, offload="optimizer", micro_batch_size=1)
    run = large()
    shape = shape_of(run)
    plain = estimate_memory(run, shape, how.model_copy(update={"offload": "none"}).settled())
    added = estimate_memory(run, shape, how.settled()).host - plain.host
    # Masters, gradients, moments, and a copy of the weights in bf16: 18 bytes, and the rounding.
    assert 18 * shape.parameters < added < 1.6 * 18 * shape.parameters


def test_gradients_stay_on_the_gpu_where_the_optimizer_is_offloaded():
    how = Execution(engine="deepspeed", zero_stage=2, offload="optimizer", micro_batch_size=1)
    run = large()
    shape = shape_of(run)
    terms = estimate_memory(run, shape, how.settled()).terms
    assert terms["gradients"] == pytest.approx(4 * shape.parameters)
    assert "moments" not in terms


def with_rule(run, rule, **options):
    optimizer = Optimizer(rule=rule, learning_rate=1e-3, **options)
    return run.model_copy(update={"optimizer": optimizer})


@pytest.mark.parametrize(
    ("rule", "options", "numbers"),
    [("adamw", {}, 2), ("sgd", {}, 1), ("sgd", {"momentum": 0.0}, 0), ("lion", {}, 1)],
)
def test_what_an_optimizer_keeps_is_what_its_rule_says(rule, options, numbers):
    run = with_rule(large(), rule, **options)
    parameters = shape_of(run).parameters
    for how in ({"zero_stage": 2, "processes": 4}, {"zero_stage": 3, "offload": "optimizer"}):
        settled = Execution(engine="deepspeed", micro_batch_size=1, **how).settled()
        memory = estimate_memory(run, shape_of(run), settled)
        adamw = estimate_memory(large(), shape_of(run), settled)
        less = 4 * (2 - numbers) * parameters / how.get("processes", 1)
        saved = adamw.allocated - memory.allocated + adamw.host - memory.host
        assert saved == pytest.approx(less, rel=1e-6)
        assert memory.terms.get("moments", 0) == pytest.approx(
            0 if "offload" in how else 4 * numbers * parameters / 4, rel=1e-6
        )


@pytest.mark.parametrize("rule", ["muon", "adafactor"])
def test_a_rule_of_whole_matrices_is_never_cut_over_gpus(rule):
    run = with_rule(large(), rule)
    chosen = choose(run, 400 * GIB, 8)
    assert execution_text(chosen.execution).startswith("plain")
    assert chosen.reason == f"{rule} needs whole matrices"
    with pytest.raises(UserError, match=f"another optimizer than {rule}") as raised:
        choose(run, 40 * GIB, 8)
    assert len(str(raised.value)) < 300


@pytest.fixture
def asked(monkeypatch):
    """Return what would be traced of runs whose model is in no catalogue: (run, engine, again,
    micro-batch); ``of`` says how many parameters it has."""
    found = []
    monkeypatch.setattr(choice, "require_usable", lambda _: None)
    monkeypatch.setattr(choice, "footprint_of", lambda *what: found.append(what))

    def of(*runs, parameters=1000):
        monkeypatch.setattr(choice, "_parameters", lambda _: parameters)
        require_feasible(runs)
        return [(run.run_id, *rest) for run, *rest in found]

    return of


def unknown(name="mine", rule="adamw", **execution):
    source = HubModel(hub=f"somebody/{name}", revision="1" * 40, pretraining="clm")
    run = make_run(model=ModelSpec(name=name, source=source), execution=Execution(**execution))
    return with_rule(run, rule)


@pytest.mark.parametrize(
    ("parameters", "rule", "execution", "engine"),
    [
        (LARGE - 1, "adamw", {}, "plain"),
        (LARGE, "adamw", {}, "deepspeed"),
        (LARGE, "adamw", {"engine": "plain"}, "plain"),
        (LARGE, "muon", {}, "plain"),
        (1000, "adamw", {"engine": "deepspeed"}, "deepspeed"),
        (1000, "adamw", {"processes": 2}, "deepspeed"),
    ],
)
def test_what_is_traced_before_a_run_is_the_engine_that_it_would_go_through(
    asked, parameters, rule, execution, engine
):
    run = unknown(rule=rule, **execution)
    assert asked(run, parameters=parameters) == [(run.run_id, engine, False, 4)]


@pytest.mark.parametrize(
    ("execution", "again", "micro"),
    [
        ({"checkpoint_activations": True}, True, 4),
        ({"checkpoint_activations": False}, False, 4),
        ({"micro_batch_size": 2}, False, 2),
    ],
)
def test_it_is_traced_with_the_micro_batch_and_checkpointing_that_it_says(
    asked, execution, again, micro
):
    run = unknown(**execution)
    assert asked(run) == [(run.run_id, "plain", again, micro)]


def test_runs_that_are_alike_are_traced_once_and_one_of_unknown_size_is_not(asked):
    run, other = unknown(), unknown("yours")
    again = run.model_copy(update={"seed": 1, "steps": 9})
    assert [one for one, *_ in asked(run, again, other)] == [run.run_id, other.run_id]


def test_the_size_of_a_model_that_is_not_known_is_not_guessed(asked):
    assert asked(unknown(), parameters=None) == []


@pytest.mark.parametrize(
    ("size", "engines"),
    [(None, []), ({"parameters": LARGE - 1}, ["plain"]), ({"parameters": LARGE}, ["deepspeed"])],
)
def test_how_large_a_model_is_that_nobody_knows_its_configuration_says(monkeypatch, size, engines):
    traced = []
    monkeypatch.setattr(choice, "require_usable", lambda _: None)
    monkeypatch.setattr(choice, "footprint_of", lambda _, engine, *__: traced.append(engine))
    monkeypatch.setattr(choice, "size_of", lambda _: size)
    require_feasible([unknown()])
    assert traced == engines


def test_models_that_were_tried_are_traced_only_for_what_a_run_changes_in_them(asked):
    assert asked(large("pythia-160m"), make_run()) == []
    dropped = make_run(dropout=True)
    assert [one for one, *_ in asked(dropped)] == [dropped.run_id]


def test_what_a_models_code_refuses_is_refused_before_it_is_traced(asked, monkeypatch):
    def refuses(run):
        raise UserError(f"{run.model.name} is not for this")

    monkeypatch.setattr(choice, "require_usable", refuses)
    with pytest.raises(UserError, match="mine is not for this"):
        asked(unknown())
    assert asked(large("pythia-160m")) == []


@pytest.mark.parametrize(
    ("execution", "text"),
    [
        ({"micro_batch_size": 4}, "plain, micro-batch 4"),
        (
            {"engine": "deepspeed", "zero_stage": 3, "processes": 2, "micro_batch_size": 1},
            "ZeRO-3 on 2, micro-batch 1",
        ),
        (
            {
                "engine": "deepspeed",
                "zero_stage": 2,
                "processes": 1,
                "offload": "optimizer",
                "micro_batch_size": 8,
                "checkpoint_activations": True,
            },
            "ZeRO-2 on 1, optimizer in CPU memory, micro-batch 8, checkpointing",
        ),
        ({"offload": "none", "micro_batch_size": 2}, "plain, micro-batch 2"),
    ],
)
def test_how_a_run_is_carried_out_is_said_in_few_words(execution, text):
    assert execution_text(Execution(**execution)) == text


def test_the_reason_is_why_nothing_simpler_was_taken():
    assert choose(large("pythia-160m"), 78 * GIB, 8).reason == "the simplest fits"
    assert choose(large(), 400 * GIB, 1).reason == "from 1B parameters on"
    cut = choose(large(), 40 * GIB, 8)
    assert cut.reason.endswith("of 40.0 GiB")
    assert "needs" in cut.reason
