"""A few steps of every kind of objective, of the model or of an adapter beside it, by the engine of
two ranks, DeepSpeed's with ZeRO 2, or of this process."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from sweeps.spec import OBJECTIVE_DEFAULTS, Execution, Lora, ModelSpec, Objective, StandinModel
from tests.engine_cells import CPU, OPTIMIZER, forget
from tests.samples.small_run import DOCS, make_run
from workers.adapters.lora import add_lora
from workers.controls.layer_groups import find_layer_groups
from workers.controls.registry import build_control
from workers.engines.plain import PlainEngine
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.models.standins import build_config, build_tokenizer
from workers.objectives.objective import few_of
from workers.objectives.registry import build_objective

BATCH, LENGTH, STEPS = 4, 24, 4
SENTENCE = "the value of the item is returned by function that was called first with no"
WORDS = SENTENCE.split()
FAMILY = "gpt_neox"


def text(k, words=5):
    return " ".join(WORDS[(7 * k + 3 * j) % len(WORDS)] for j in range(words + k % 4))


COUNT = range(12)
TEXTS, OTHERS = [text(k) for k in COUNT], [text(k + 5, 3) for k in COUNT]
# By what it is called: a kind, its rows and its options.
KINDS = {
    "pairs": (
        "classification",
        {"text": TEXTS, "text_pair": OTHERS, "label": [k % 3 for k in COUNT]},
        {"labels": 3},
    ),
    "regression": ("regression", {"text": TEXTS, "label": [k / 3 for k in COUNT]}, {}),
    "multi_label": (
        "multi_label",
        {"text": TEXTS, "labels": [[k % 4, 4] for k in COUNT]},
        {"labels": 5},
    ),
    "token_classification": (
        "token_classification",
        {
            "tokens": [one.split() for one in TEXTS],
            "labels": [[j % 3 for j, _ in enumerate(one.split())] for one in TEXTS],
        },
        {"labels": 3},
    ),
    "sft": ("sft", {"prompt": TEXTS, "completion": OTHERS}, {}),
    "sft_within": ("sft", {"prompt": TEXTS * 3, "completion": OTHERS * 3}, {"packing": "within"}),
    "sft_across": ("sft", {"prompt": TEXTS * 2, "completion": OTHERS * 2}, {"packing": "across"}),
    "preference": ("preference", {"prompt": TEXTS, "chosen": OTHERS, "rejected": TEXTS[::-1]}, {}),
    "negatives": (
        "contrastive",
        {"anchor": TEXTS, "positive": OTHERS, "negative": TEXTS[::-1]},
        {"mask_duplicates": True},
    ),
}


# What may be trained, by what it is called.
ADAPTERS = {"full": None, "lora": Lora(rank=2)}


def built(name, adapter=None):
    """Return an objective, its arrays, the model that it trains and the pretrained one."""
    kind, rows, options = KINDS[name]
    source = StandinModel(
        standin=FAMILY,
        layers=3,
        width=32,
        vocabulary=400,
        pretrain_steps=1,
        pretraining="clm",
        digest="0" * 64,
    )
    torch.manual_seed(0)
    tokenizer = build_tokenizer(source)
    language_model = AutoModelForCausalLM.from_config(build_config(source, tokenizer)).eval()
    options = {**OBJECTIVE_DEFAULTS[kind], **options}
    objective = build_objective(Objective(kind=kind, data=DOCS, read_roles=tuple(rows), **options))
    facts = ModelFacts(FAMILY, "", "", 3, 32, 0)
    pretrained = PretrainedModel(language_model, tokenizer, facts, content=name)
    if adapter is not None:
        add_lora(adapter, 0, "tiny", pretrained)
    model = objective.build_model(pretrained)
    arrays = objective.tokenise(tokenizer, rows, LENGTH)
    return objective, arrays, model, pretrained, ModelSpec(name="tiny", source=source)


def trained(name, folder, ranks=None, device=CPU, precision="fp32", what="full"):
    """Return every weight that is trained after a few steps, and the losses on the way, on the
    CPU."""
    objective, arrays, model, pretrained, spec = built(name, ADAPTERS[what])
    execution = Execution(
        micro_batch_size=1, **({} if ranks is None else {"engine": "deepspeed", "processes": 2})
    )
    run = make_run(
        model=spec,
        objective=objective.objective,
        batch_size=BATCH,
        steps=STEPS,
        sequence_length=LENGTH,
        execution=execution,
        precision=precision,
    )
    sample = few_of(objective.batch(arrays, run, 1))
    groups = find_layer_groups(model, lambda: objective.loss_sum(model, sample), pretrained.stacks)
    engine = engine_of(model, pretrained, groups, run, ranks, device)
    arrays = objective.completed(arrays, engine, run, pretrained, Path(folder))
    losses = []
    for step in range(1, STEPS + 1):
        batch = objective.batch(arrays, run, step)
        losses.append(objective.accumulate(engine, batch, run.micro_batch_size))
        engine.step(OPTIMIZER.learning_rate)
    layers = [engine.layer(i, "weights", CPU) for i in range(len(engine.groups))]
    weights = torch.cat([layer[k].flatten() for layer in layers for k in sorted(layer)])
    key = name if what == "full" else f"{name} {what}"
    return {f"{key}/weights": weights, f"{key}/losses": torch.stack(losses).detach().cpu()}


def engine_of(model, pretrained, groups, run, ranks, device):
    control = build_control(run.control)
    if ranks is None:
        model.to(device)
        return PlainEngine(model, groups, control, OPTIMIZER, run.precision)
    from workers.engines.deepspeed import DeepSpeedEngine

    if not ranks.leads:
        forget(model)
    execution = Execution(engine="deepspeed", processes=ranks.size, zero_stage=2)
    return DeepSpeedEngine(
        model, pretrained.backbone, groups, control, OPTIMIZER, "fp32", execution, ranks, CPU
    )
