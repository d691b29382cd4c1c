"""A step on fake tensors against the same step on real ones, seen by the same tracker."""

import json

import pytest
import torch
from small_run import DOCS, make_run
from transformers import Gemma3Config, MixtralConfig, T5Config

from sweeps.errors import UserError
from sweeps.spec import (
    OBJECTIVE_DEFAULTS,
    OBJECTIVES,
    OPTIMIZERS,
    PRETRAINING_OBJECTIVES,
    EqualStep,
    Execution,
    FolderModel,
    Lora,
    ModelSpec,
    Objective,
    Optimizer,
    StandinModel,
)
from workers.adapters.registry import add_adapter
from workers.controls.layer_groups import find_layer_groups
from workers.controls.registry import build_control
from workers.engines.plain import PlainEngine
from workers.footprint.__main__ import answer
from workers.footprint.device_autocast import autocast_as_on_a_gpu
from workers.footprint.skeleton import configuration, skeleton
from workers.footprint.trace import _real_batch, trace
from workers.footprint.tracker import Tracker
from workers.models.pretrained import PretrainedModel
from workers.objectives.registry import build_objective
from workers.updates.slabs import DEVICE_SLAB


def run_of(family="gpt_neox", kind=None, **fields):
    masked = family in ("bert", "roberta", "albert")
    source = StandinModel(
        standin=family,
        layers=2,
        width=48,
        vocabulary=500,
        pretrain_steps=1,
        pretraining="mlm" if masked else "clm",
        digest="0" * 64,
    )
    objective = Objective(
        kind=kind or source.pretraining,
        data=DOCS,
        **OBJECTIVE_DEFAULTS[kind or source.pretraining],
    )
    given = {"model": ModelSpec(name="tiny", source=source), "objective": objective}
    return make_run(**{**given, "sequence_length": 12, **fields})


def real_peaks(run):
    """Return the tracker's peaks over two micro-batches and a step that are computed."""
    objective = build_objective(run.objective)
    drawn = skeleton(run.model, torch.float32)
    drawn.language_model.init_weights()
    pretrained = PretrainedModel(drawn.language_model, None, drawn.facts)
    add_adapter(run, pretrained)
    model = objective.build_model(pretrained)
    batch = _real_batch(run, objective)
    groups = find_layer_groups(model, lambda: objective.loss_sum(model, batch))
    control = build_control(run.control)
    engine = PlainEngine(model, groups, control, run.optimizer, run.precision, DEVICE_SLAB)
    tracker = Tracker(model)
    tracker.track_external(engine.optimizer, *batch.values(), *engine.optimizer.held_beside_state())
    found = []
    for _ in range(2):
        with tracker.watching():
            objective.accumulate(engine, batch, run.batch_size)
        found.append(sum(tracker.peak().values()))
    with tracker.watching():
        engine.step(1e-4)
    return [*found, sum(tracker.peak().values())]


@pytest.mark.parametrize(
    "run",
    [
        run_of(),
        pytest.param(run_of("mamba"), marks=pytest.mark.slow),
        pytest.param(run_of("bert"), marks=pytest.mark.slow),
        run_of("bert", "classification", control=EqualStep(target="median")),
        run_of("opt_post_norm", "contrastive", batch_size=5),
        *(
            pytest.param(run_of("gpt2", kind), marks=pytest.mark.slow)
            for kind in OBJECTIVES
            if kind not in PRETRAINING_OBJECTIVES
        ),
        pytest.param(
            run_of("opt", optimizer=Optimizer(rule="lion", learning_rate=1e-4, weight_decay=0.1)),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            run_of("gpt2", optimizer=Optimizer(rule="adafactor", learning_rate=1e-2)),
            marks=pytest.mark.slow,
        ),
        run_of("bert", optimizer=Optimizer(rule="muon", learning_rate=1e-3)),
    ],
    ids=lambda run: f"{run.model.source.standin}-{run.objective.kind}-{run.optimizer.rule}",
)
def test_a_step_without_memory_has_the_peaks_of_one_with_it(run):
    torch.manual_seed(0)
    traced = trace(run)
    peaks = [sum(kinds.values()) for kinds in (traced.first, traced.second, traced.step)]
    assert peaks == pytest.approx(real_peaks(run), rel=0.01)


def run_of_a_folder(folder, config, kind="clm"):
    config.save_pretrained(folder)
    source = FolderModel(folder=str(folder), digest="0" * 64, pretraining=kind)
    objective = Objective(kind=kind, data=DOCS, **OBJECTIVE_DEFAULTS[kind])
    model = ModelSpec(name="tiny", source=source)
    return make_run(model=model, objective=objective, sequence_length=12)


@pytest.mark.slow
def test_a_mixture_of_experts_and_two_stacks_have_the_peaks_of_real_ones(tmp_path):
    """torch says of no product of experts in float32 what shape it has, and counts none."""
    sizes = {"num_hidden_layers": 2, "vocab_size": 300, "pad_token_id": 0}
    experts = MixtralConfig(
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        **sizes,
    )
    two_stacks = T5Config(d_model=32, d_kv=16, d_ff=48, num_heads=2, num_layers=2, **sizes)
    for run in (
        run_of_a_folder(tmp_path / "experts", experts),
        run_of_a_folder(tmp_path / "two", two_stacks, "span_corruption"),
    ):
        torch.manual_seed(0)
        traced = trace(run)
        peaks = [sum(kinds.values()) for kinds in (traced.first, traced.second, traced.step)]
        assert peaks == pytest.approx(real_peaks(run), rel=0.02)
        assert traced.probe_flops > 0
    wide = MixtralConfig(**{**experts.to_diff_dict(), "intermediate_size": 96})
    more = trace(run_of_a_folder(tmp_path / "wide", wide)).flops
    once = trace(run_of_a_folder(tmp_path / "experts", experts)).flops
    run = run_of()
    tokens = run.batch_size * run.sequence_length
    # Three matrices of two experts a token, in two blocks: forward, and twice that backward.
    assert more - once == 3 * 2 * 2 * 3 * 2 * 32 * 48 * tokens


def test_weights_that_are_drawn_until_they_are_small_are_not_drawn(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    text = {**sizes, "vocab_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    seen = {**sizes, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    config = Gemma3Config(text_config={**text, "head_dim": 8}, vision_config=seen)
    assert trace(run_of_a_folder(tmp_path / "model", config)).layers == 2


@pytest.mark.parametrize("packing", ["within", "across"])
def test_answers_that_share_a_sequence_are_traced_too(packing):
    run = run_of("gpt2", "sft")
    objective = run.objective.model_copy(update={"packing": packing})
    assert trace(run.model_copy(update={"objective": objective})).flops > 0


def test_a_frozen_base_has_neither_gradients_nor_moments():
    whole, run = run_of("gpt2"), run_of("gpt2", adapter=Lora(rank=2))
    torch.manual_seed(0)
    full, traced = trace(whole), trace(run)
    trained = sum(map(sum, traced.groups))
    # Of each block four matrices of 48: to 144, to 48, to 192 and back.
    assert trained == 2 * 2 * (48 + 144 + 48 + 48 + 48 + 192 + 192 + 48)
    assert traced.frozen == sum(map(sum, full.groups))
    assert 8 * trained <= traced.step["moments"] < 16 * trained
    assert traced.step["gradients"] < 0.1 * full.step["gradients"]
    peaks = [sum(kinds.values()) for kinds in (traced.first, traced.second, traced.step)]
    assert peaks == pytest.approx(real_peaks(run), rel=0.01)
    assert traced.flops < 0.85 * full.flops


def test_activations_grow_with_the_micro_batch_on_a_line():
    few, some, many = (trace(run_of(batch_size=rows)).extra for rows in (2, 6, 10))
    assert some == pytest.approx((few + many) / 2, rel=0.02)


def test_a_checkpointed_step_keeps_less_and_computes_more():
    run = run_of(batch_size=16, sequence_length=64)
    again = run.model_copy(
        update={"execution": Execution(engine="plain", checkpoint_activations=True)}
    )
    kept, computed = trace(run), trace(again)
    assert computed.extra < kept.extra
    assert computed.flops > kept.flops


def test_operations_are_six_a_parameter_and_token_where_attention_is_little():
    run = run_of(batch_size=4, sequence_length=32)
    traced = trace(run)
    tokens = run.batch_size * run.sequence_length
    # Embeddings are looked up, not multiplied.
    multiplied = traced.parameters - run.model.source.vocabulary * run.model.source.width
    assert traced.flops == pytest.approx(6 * multiplied * tokens, rel=0.2)


def test_what_cannot_be_carried_out_is_refused_in_one_short_line(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    source = FolderModel(folder=str(folder), digest="0" * 64, pretraining="clm")
    run = make_run(model=ModelSpec(name="images", source=source))
    found = answer(json.dumps({"run": run.model_dump_json()}))
    assert found["refused"].startswith("model images: vit has no head")
    assert len(found["refused"]) < 300
    assert "\n" not in found["refused"]
    (folder / "config.json").write_text('{"model_type": "no such"}')
    with pytest.raises(UserError, match="names no model"):
        configuration(run.model)


def test_longer_sequences_than_positions_are_refused():
    found = answer(json.dumps({"run": run_of(sequence_length=4000).model_dump_json()}))
    assert "beyond the 256 positions" in found["refused"]


def test_code_that_needs_values_is_no_refusal(monkeypatch):
    monkeypatch.setattr("workers.footprint.trace.group_layers", lambda *_: 1 // 0)
    found = answer(json.dumps({"run": run_of().model_dump_json()}))
    assert "ZeroDivisionError" in found["unknown"]


def test_autocast_is_a_gpu_s_while_a_step_is_traced_and_the_cpu_s_again_behind_it():
    states, norm = torch.ones(2, 8, dtype=torch.bfloat16), torch.nn.LayerNorm(8)

    def type_of_a_norm():
        with torch.autocast("cpu", torch.bfloat16):
            return norm(states).dtype

    assert type_of_a_norm() == torch.bfloat16
    with autocast_as_on_a_gpu():
        assert type_of_a_norm() == torch.float32
    assert type_of_a_norm() == torch.bfloat16


def test_only_the_size_is_read_where_that_is_asked():
    run = run_of("gpt2")
    found = answer(json.dumps({"run": run.model_dump_json(), "only": "size"}))["size"]
    assert found == {"parameters": trace(run).parameters, "layers": 2, "width": 48}


def test_a_step_keeps_as_much_of_a_parameter_as_its_rule():
    """Muon keeps one number of the matrices of blocks and two of the rest; Adafactor one a row and
    a column."""
    kept = {}
    for rule in OPTIMIZERS:
        traced = trace(run_of("gpt2", optimizer=Optimizer(rule=rule, learning_rate=1e-3)))
        kept[rule] = traced.step["moments"] / 4 / sum(map(sum, traced.groups))
    whole = {rule: Optimizer(rule=rule, learning_rate=1.0).kept for rule in OPTIMIZERS}
    # Of the largest layer, which fits a slab here, the squares are there for a moment.
    largest = max(map(sum, traced.groups)) / sum(map(sum, traced.groups))
    for rule in ("adamw", "sgd", "lion"):
        # Parameters as small as these are packed: their gradients are copied for it.
        assert kept[rule] == pytest.approx(whole[rule] + 1 + largest, rel=1e-3)
    assert whole["muon"] - 1 < kept["muon"] < whole["muon"]
    # Beside the update of the largest layer, which is whole for a moment.
    assert kept["adafactor"] - largest < 0.05
