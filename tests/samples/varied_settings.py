"""For any setting of a run, found by rule: two valid runs that differ in it alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from planted_store import run_spec
from pydantic import ValidationError

from sweeps.declaration.settings import HEADS, Setting, condition_settings
from sweeps.spec import (
    BuiltinData,
    ComparedModel,
    EqualStep,
    Evaluation,
    FileData,
    FolderModel,
    HubData,
    HubModel,
    Judge,
    LayerClip,
    LayerRates,
    LengthMatched,
    Lora,
    NoImprovement,
    Optimizer,
    PluginCode,
    PluginControl,
    PluginMetric,
    PluginRule,
    PluginSelection,
    PromptSet,
    Refusal,
    RunSpec,
    StandinModel,
    Tuned,
)

_CODE = PluginCode(plugin="/code/mine.py", plugin_digest="7" * 64)
_MODELS = (
    HubModel(hub="a/b", revision="0" * 40, pretraining="clm"),
    FolderModel(
        folder="models/mine", digest="1" * 64, pretraining="clm", family="mine", code=_CODE
    ),
    StandinModel(standin="gpt2", pretraining="clm", digest="2" * 64),
)
_DATA = (
    HubData(hub="c/d", revision="3" * 40, limit=99, shuffle_seed=1),
    FileData(file="texts/mine.jsonl", digest="4" * 64),
    BuiltinData(builtin="python-docs", digest="5" * 64),
)
_CONTROLS = (
    EqualStep(),
    LayerClip(max_norm=0.1),
    LayerRates(rates=(0.5, 1.0, 0.0)),
    LayerRates(decay=0.5),
    PluginControl(kind="soft", code=_CODE),
)
_PROMPTS = PromptSet(name="asked", data=_DATA[1], kind="harmful")
_MADE_UP = StandinModel(standin="gpt2", pretraining="clm", digest="2" * 64, language="made_up")
_LOOPED = StandinModel(standin="looped_gpt2", layers=6, pretraining="clm", digest="2" * 64)
# Of what no base has otherwise: a momentum, and a share of the steps.
_OPTIMIZER = Optimizer(rule="sgd", learning_rate=1e-3, schedule="wsd")
_OWN_RULE = PluginRule(code=_CODE, state_tensors=1)
_OWN = Optimizer(rule="mine", learning_rate=1e-3, own=_OWN_RULE)
# What a field of any type may hold instead of what it holds.
_OTHERS = (
    *(
        3,
        4,
        5,
        32,
        512,
        1024,
        0.25,
        0.02,
        [0.8, 0.99],
        ["procrustes", "mean_shift"],
        {"text": "body"},
    ),
    ["text", "text_pair", "label"],
    *(
        "6" * 40,
        "mlm",
        "first",
        "constant",
        "bf16",
        "median",
        "all",
        "bert",
        "contrastive",
        "another",
        "blank_line",
        "within",
        "sequence",
        "matrix",
        "lion",
        "lora",
        "random",
        ["blocks 1"],
        "8" * 64,
        True,
        False,
    ),
    [PluginMetric(name="near", code=_CODE).model_dump()],
    [ComparedModel(name="base", source=_MODELS[0]).model_dump()],
    [_PROMPTS.model_copy(update={"kind": "benign"}).model_dump(mode="json")],
    [Judge(name="judge", source=_MODELS[0]).model_dump()],
    *("made_up", "aligned"),
)


def bases() -> Iterator[RunSpec]:
    """Yield runs that among them have every kind of model, data, objective, control and adapter."""
    kinds = ("classification", "contrastive", "clm", "mlm")
    for kind, control in itertools.product(kinds, _CONTROLS):
        run = run_spec("m", kind, control, steps=4, probe_every=2, part_steps=4)
        if kind == "mlm":
            yield run
            yield run.model_copy(update={"evaluation": Evaluation(fraction=0.5)})
            for optimizer in (_OPTIMIZER, _OWN):
                yield run.model_copy(update={"optimizer": optimizer})
            yield run.model_copy(update={"adapter": Lora()})
            yield run.model_copy(update={"selection": PluginSelection(kind="own", code=_CODE)})
            yield run.model_copy(update={"tuned": Tuned(digest="7" * 64, place="models/a")})
            continue
        if kind == "clm":
            made_up = run.model.model_copy(update={"source": _MADE_UP})
            answering = Evaluation(fraction=0.5, refusal=Refusal(prompts=(_PROMPTS,)))
            yield run.model_copy(update={"model": made_up, "evaluation": answering})
            looped = run.model.model_copy(update={"source": _LOOPED})
            yield run.model_copy(update={"model": looped})
            own = {"kind": "own", "name": "mine", "code": _CODE}
            yield run.model_copy(update={"objective": run.objective.model_copy(update=own)})
        for source, data in zip(_MODELS, _DATA, strict=True):
            yield run.model_copy(
                update={
                    "model": run.model.model_copy(update={"source": source}),
                    "objective": run.objective.model_copy(update={"name": "mine", "data": data}),
                    "probe": run.probe.model_copy(update={"data": data}),
                    "evaluation": Evaluation(data=data, every=1),
                    "stop": NoImprovement(over=1),
                }
            )
            if kind == "classification":
                yield run.model_copy(update={"selection": LengthMatched()})


def two_values(setting: Setting) -> tuple[RunSpec, RunSpec]:
    """Return two runs of one seed that differ in a setting alone, under a control."""
    for base in bases():
        content = base.model_dump(mode="json")
        part: Any = content
        for field in setting.path[:-1]:
            part = part.get(field) if isinstance(part, dict) else None
        if not isinstance(part, dict) or setting.path[-1] not in part:
            continue
        for other in _OTHERS:
            found = _with(content, setting.path, other)
            if found is not None and found.run_id != base.run_id:
                return base, found
    raise AssertionError(f"no second value found for {setting}: add one to _OTHERS")


def _with(content: dict[str, Any], path: tuple[str, ...], value: Any) -> RunSpec | None:
    copy = json.loads(json.dumps(content))
    part = copy
    for field in path[:-1]:
        part = part[field]
    if part[path[-1]] == value:
        return None
    part[path[-1]] = value
    try:
        return RunSpec.model_validate_json(json.dumps(copy))
    except ValidationError:
        return None


def varying_settings() -> list[Setting]:
    """Return every setting that may differ, alone, between two conditions of one model and
    objective: what ends a run early is of one kind, and comes with its options."""
    together = (*HEADS, "stop")
    return [one for one in condition_settings() if one.name not in together]
