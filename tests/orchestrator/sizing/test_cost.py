import json

import pytest
from planted_store import run_spec as planted_run

from orchestrator.sizing import cost
from orchestrator.sizing.cost import estimate, evaluated_tokens, parameter_count
from sweeps.declaration.entries.sweep_spec import ModelEntry
from sweeps.declaration.expand import read_sweep
from sweeps.declaration.sources import resolve_model
from sweeps.spec import All, Evaluation, High, Lora, Low, Objective, Random, StandinModel

PAPER = list(read_sweep("sweeps/library/paper.yaml").runs)


def test_a_runs_flops_are_six_a_parameter_and_token():
    run = next(run for run in PAPER if run.model.name == "gpt2" and run.objective.kind == "clm")
    cost = estimate(run)
    assert cost.tokens == 1000 * 32 * 128
    training = 6 * cost.parameters * cost.tokens
    assert training < cost.flops < 1.02 * training
    assert cost.state_bytes == 16 * 124_439_808


def test_pairs_count_both_sentences():
    costs = {run.objective.kind: estimate(run).tokens for run in PAPER if run.model.name == "gpt2"}
    assert costs["contrastive"] == 2 * costs["classification"]


def test_an_evaluation_of_so_many_batches_costs_two_a_parameter_and_token():
    run = next(run for run in PAPER if run.model.name == "gpt2" and run.objective.kind == "clm")
    cost = estimate(run)
    said = Evaluation(fraction=0.1, every=100, batches=5)
    scored = run.model_copy(update={"evaluation": said})
    times = len(scored.evaluation_steps)
    assert times >= 11
    more = estimate(scored).flops - cost.flops
    assert more == pytest.approx(2 * cost.parameters * times * 5 * 32 * 128, rel=0.03)
    whole = run.model_copy(update={"evaluation": Evaluation(fraction=0.1)})
    assert estimate(whole).flops == cost.flops  # how many examples there are is not known


@pytest.mark.parametrize(
    ("kind", "roles", "sequences"),
    [
        ("classification", ("text", "text_pair", "label"), 1),
        ("contrastive", (), 2),
        ("contrastive", ("anchor", "positive", "negative"), 3),
        ("preference", (), 2),
    ],
)
def test_training_and_evaluation_read_every_sequence_of_an_example(kind, roles, sequences):
    run = next(run for run in PAPER if run.model.name == "gpt2" and run.objective.kind == "clm")
    objective = Objective(kind=kind, data=run.objective.data, read_roles=roles)
    said = Evaluation(fraction=0.1, batches=5)
    run = run.model_copy(update={"objective": objective, "evaluation": said})
    batch = sequences * run.batch_size * run.sequence_length
    assert estimate(run).tokens == run.steps * batch
    assert evaluated_tokens(run) == len(run.evaluation_steps) * 5 * batch


@pytest.mark.parametrize(("dtype", "bytes_each"), [("F32", 4), ("BF16", 2)])
def test_a_folders_parameters_are_counted_in_its_files_whatever_their_type(
    tmp_path, dtype, bytes_each
):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    for part, count in enumerate((600, 400)):
        size = count * bytes_each
        entry = {"dtype": dtype, "shape": [count // 4, 4], "data_offsets": [0, size]}
        header = json.dumps({"__metadata__": {"format": "pt"}, f"w{part}": entry})
        weights = len(header).to_bytes(8, "little") + header.encode() + bytes(size)
        (tmp_path / f"model-{part}.safetensors").write_bytes(weights)
    (tmp_path / "tokenizer.json").write_text("{}")
    source = resolve_model("m", {"m": ModelEntry(folder=str(tmp_path))}, tmp_path)
    assert parameter_count(source) == 1000


def test_a_block_that_is_called_again_has_its_parameters_once():
    twice, often = (
        StandinModel(standin="albert", layers=calls, pretraining="mlm", digest="d")
        for calls in (2, 8)
    )
    assert parameter_count(twice) == parameter_count(often)
    own = twice.model_copy(update={"standin": "bert"})
    assert parameter_count(own) > parameter_count(twice)


def test_a_traced_step_says_what_steps_probes_and_evaluations_take(monkeypatch):
    monkeypatch.setattr(cost, "stored_trace", lambda _: {"flops": 100.0, "probe_flops": 7.0})
    run = planted_run()
    assert (run.steps, run.probe_steps) == (20, (10, 20))
    # One probe more is the reference.
    assert estimate(run).flops == 20 * 100 + 3 * 7
    scored = run.model_copy(update={"evaluation": Evaluation(fraction=0.1, batches=6)})
    # Three times six batches forward alone, a third of a step each.
    assert estimate(scored).flops == 20 * 100 + 3 * 7 + 3 * 6 / 3 * 100


def test_without_a_trace_flops_are_counted_by_parameters_and_tokens(monkeypatch):
    monkeypatch.setattr(cost, "stored_trace", lambda _: None)
    monkeypatch.setattr(cost, "parameter_count", lambda _: 1000)
    monkeypatch.setattr(cost, "width_of", lambda _: 16)
    run = planted_run()
    rows, length = run.probe.rows_for(16), run.probe.sequence_length
    probed = max(min(rows, 64) * length, rows)
    found = estimate(run)
    assert found.tokens == 20 * 8 * 16
    assert found.flops == 1000 * (6 * 20 * 8 * 16 + 2 * 3 * probed)
    assert found.state_bytes == 4 * (2 + 2) * 1000


@pytest.mark.parametrize(
    ("selection", "passes"),
    [(All(), 1.0), (Random(), 1.0), (High(share=0.25), 1 + 4.0), (Low(share=0.5), 1 + 2.0)],
)
def test_candidates_whose_gradients_are_measured_are_gone_through_beside_the_batch(
    selection, passes, monkeypatch
):
    monkeypatch.setattr(cost, "stored_trace", lambda _: None)
    run = planted_run()
    selecting = run.model_copy(update={"selection": selection})
    assert cost.passes(selecting) == passes
    training = 6 * estimate_parameters(monkeypatch, 1000) * 20 * 8 * 16
    more = estimate(selecting).flops - estimate(run).flops
    assert more == pytest.approx((passes - 1) * training)


def estimate_parameters(monkeypatch, count):
    monkeypatch.setattr(cost, "parameter_count", lambda _: count)
    return count


def test_where_an_adapter_is_trained_the_base_has_no_gradient_and_no_moments(monkeypatch):
    monkeypatch.setattr(cost, "stored_trace", lambda _: None)
    estimate_parameters(monkeypatch, 1000)
    run = planted_run()
    plain, adapted = estimate(run), estimate(run.model_copy(update={"adapter": Lora()}))
    assert plain.flops - adapted.flops == pytest.approx(2 * 1000 * 20 * 8 * 16)
    assert (plain.state_bytes, adapted.state_bytes) == (16 * 1000, 4 * 1000)


def test_what_nobody_knows_is_none_and_its_flops_those_of_an_assumed_model(monkeypatch):
    monkeypatch.setattr(cost, "stored_trace", lambda _: None)
    monkeypatch.setattr(cost, "size_of", lambda _: None)
    estimate_parameters(monkeypatch, None)
    unknown = estimate(planted_run())
    assert (unknown.parameters, unknown.state_bytes) == (None, None)
    monkeypatch.setattr(cost, "size_of", lambda _: {"parameters": 1e8})
    known = estimate(planted_run())
    assert (known.parameters, known.state_bytes) == (10**8, 16 * 10**8)
    assert known.flops == unknown.flops


def test_the_largest_checkpoint_is_of_models_that_are_trained_whole(monkeypatch):
    run = planted_run()
    small = run.model_copy(update={"model": run.model.model_copy(update={"name": "small"})})
    adapted = run.model_copy(update={"adapter": Lora()})
    monkeypatch.setattr(cost, "parameter_count", lambda _: 10**9)
    assert cost.largest_checkpoint([]) == cost.largest_checkpoint([adapted]) == 0
    assert cost.largest_checkpoint([small, adapted, run]) == 12 * 10**9
    sizes = iter([10**6, 10**9])
    monkeypatch.setattr(cost, "parameter_count", lambda _: next(sizes))
    assert cost.largest_checkpoint([small, run]) == 12 * 10**9


def test_a_notice_is_for_the_largest_checkpoint_in_whole_tens_of_seconds(monkeypatch):
    monkeypatch.setattr(cost, "seconds_for_notice", lambda size: size / 1e9)
    monkeypatch.setattr(cost, "parameter_count", lambda _: 10**9)
    spare = cost.LEAST_SECONDS
    assert cost.notice_seconds([]) == max(90, 10 * -(-spare // 10))
    monkeypatch.setattr(cost, "seconds_for_notice", lambda _: 201.0)
    assert cost.notice_seconds([planted_run()]) == 10 * -(-(spare + 201) // 10)
