"""Trials of tiny models: a step of training, a probe, and what must hold of both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_run import DOCS, make_run
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)
from transformers.models.auto import modeling_auto

from sweeps.errors import UserError
from sweeps.sources.content import folder_digest
from sweeps.spec import (
    ANSWERING,
    OBJECTIVE_DEFAULTS,
    OBJECTIVES,
    PRETRAINING_OBJECTIVES,
    EqualStep,
    FolderModel,
    ModelSpec,
    Objective,
    RunSpec,
    Standard,
    StandinModel,
)
from tests.zoo.shrinking import shrunk
from workers.controls.layer_groups import Grouping, group_layers
from workers.controls.registry import build_control
from workers.depth.stacks import Stack
from workers.engines.plain import PlainEngine
from workers.footprint.word_tokenizer import word_cell, word_tokenizer
from workers.models.pretrained import (
    Examined,
    PretrainedModel,
    examine,
    inputs_of,
    measure_facts,
    quiet_config,
)
from workers.models.standins import build_tokenizer
from workers.objectives.objective import IGNORED
from workers.objectives.registry import build_objective
from workers.probes.capture import capture
from workers.probes.rows import ProbeRows

CPU = torch.device("cpu")
ROWS, TOKENS, VOCABULARY = 4, 16, 300
SPREAD = 1e-4
CONTROLS = {"standard": Standard(), "equal_step": EqualStep()}
# The mappings of transformers that say which architectures have which head, the class that makes
# one, and the objective they are pretrained with; the last have no head.
KINDS: dict[str, tuple[str, Any, str | None]] = {
    "clm": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", AutoModelForCausalLM, "clm"),
    "mlm": ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", AutoModelForMaskedLM, "mlm"),
    "span_corruption": (
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
        AutoModelForSeq2SeqLM,
        "span_corruption",
    ),
    "image_text": (
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
        AutoModelForImageTextToText,
        "clm",
    ),
    "bare": ("MODEL_MAPPING_NAMES", AutoModel, None),
}
WORKS, REFUSED, BROKEN, NOT_MADE = "works", "refused", "broken", "not made"
# A configuration that shrinking did not get right fails in arithmetic, not for want of inputs.
ILL_SHAPED = re.compile(r"size of tensor|shapes cannot|split_with_sizes|Invalid output_size|index")


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: it works, is refused in so many words, or is broken."""

    verdict: str
    words: str = ""


def architectures(kind: str) -> list[str]:
    """Return the model types that have the head of a kind."""
    return list(getattr(modeling_auto, KINDS[kind][0]))


def objectives(kind: str) -> tuple[str, ...]:
    """Return the objectives that models of a kind can be trained with."""
    pretraining = KINDS[kind][2]
    others = [one for one in OBJECTIVES if one not in PRETRAINING_OBJECTIVES]
    if pretraining != "clm":
        others = [one for one in others if one not in ANSWERING]
    return (*((pretraining,) if pretraining else ()), *others)


# ------------------------------------------------------------------------------------------ making
def tiny(model_type: str, kind: str) -> tuple[torch.nn.Module, Examined | UserError]:
    """Return a tiny model of an architecture, and what is seen of it or why it is refused.

    Raises what transformers raises where no rule makes one that it can build.
    """
    failed: Exception | None = None
    refused: tuple[torch.nn.Module, UserError] | None = None
    for config in shrunk(model_type, VOCABULARY):
        torch.manual_seed(0)
        try:
            quiet_config(config)
            model = KINDS[kind][1].from_config(config).eval()
        except Exception as error:
            failed = failed or error
            continue
        try:
            return model, examine(model)
        except UserError as error:
            if ILL_SHAPED.search(str(error)):
                failed = failed or error
            else:
                refused = refused or (model, error)
    if refused is not None:
        return refused
    assert failed is not None
    raise failed


# ------------------------------------------------------------------------------------------ trying
def tried(
    model: torch.nn.Module, examined: Examined, kind: str, controls: list[str]
) -> Iterator[tuple[str, Outcome]]:
    """Yield how a step of each objective and control ends."""
    for objective in objectives(kind):
        for control in controls:
            name = f"{objective}/{control}"
            try:
                step(model, examined, objective, control)
                yield name, Outcome(WORKS)
            except UserError as error:
                yield name, Outcome(REFUSED, str(error))
            except Exception as error:
                said = " ".join(f"{type(error).__name__}: {error}".split())
                yield name, Outcome(BROKEN, said[:300])


def run_of(objective: str, control: str) -> RunSpec:
    options = {**OBJECTIVE_DEFAULTS[objective]}
    pretraining = objective if objective in PRETRAINING_OBJECTIVES else "clm"
    source = FolderModel(folder="tiny", digest="0" * 64, pretraining=pretraining)
    return make_run(
        model=ModelSpec(name="tiny", source=source),
        objective=Objective(kind=objective, data=DOCS, **options),
        control=CONTROLS[control],
        batch_size=ROWS,
    )


def step(model: torch.nn.Module, examined: Examined, objective: str, control: str) -> Grouping:
    """Train for a step; raise AssertionError where what must hold of it does not."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    run = run_of(objective, control)
    facts = measure_facts(model, stacks=examined.stacks)
    pretrained = PretrainedModel(model, None, facts, examined=examined)
    training = build_objective(run.objective)
    trained = training.build_model(pretrained)
    batch = training.batch(_arrays(objective), run, 1)
    grouping = group_layers(trained, lambda: training.loss_sum(trained, batch), pretrained.stacks)
    grouped = [id(p) for group in grouping.groups for p in group.parameters]
    trainable = {id(p) for p in trained.parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped)), "a parameter is in two groups"
    assert set(grouped) == trainable, "groups do not cover what is trained"
    engine = PlainEngine(
        trained, grouping.groups, build_control(run.control), run.optimizer, "fp32"
    )
    loss = float(training.accumulate(engine, batch, ROWS))
    assert np.isfinite(loss), "the loss is not finite"
    taken = engine.step(1e-3)
    blocks = [k for k, group in enumerate(grouping.groups) if group.kind == "block"]
    ratios = [taken.update_norms[k] / taken.weight_norms[k] for k in blocks]
    assert min(ratios) > 0, "a block did not move"
    if control == "equal_step":
        assert max(ratios) / min(ratios) - 1 < SPREAD, "blocks moved by unequal steps"
    return grouping


def _arrays(objective: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)

    def ids() -> np.ndarray:
        return generator.integers(20, VOCABULARY - 20, (2 * ROWS, TOKENS)).astype(np.int32)

    if objective == "clm":
        return {"input_ids": ids()}
    whole = np.ones((2 * ROWS, TOKENS), dtype=np.int32)
    special = np.asarray([0, 1, 2, 3], dtype=np.int32)
    if objective == "classification":
        labels = np.arange(2 * ROWS, dtype=np.int32) % 2
        return {"input_ids": ids(), "attention_mask": whole, "labels": labels}
    if objective == "contrastive":
        return {
            "anchor_input_ids": ids(),
            "anchor_attention_mask": whole,
            "positive_input_ids": ids(),
            "positive_attention_mask": whole,
        }
    if objective not in PRETRAINING_OBJECTIVES:
        return _of_words(objective, ids)
    return {
        "input_ids": ids(),
        "special_ids": special,
        "mask_and_vocabulary": np.asarray([4, VOCABULARY], dtype=np.int32),
        "marks": np.asarray([5, 6, 7, 8], dtype=np.int32),
        "end": np.asarray([1], dtype=np.int32),
    }


def _of_words(objective: str, ids: Callable[[], np.ndarray]) -> dict[str, np.ndarray]:
    """Return what an objective itself makes of rows of one word, with other tokens in its place."""
    training = build_objective(run_of(objective, "standard").objective)
    cells = training.objective.cells
    rows = {role: [word_cell(cell, TOKENS)] * (2 * ROWS) for role, cell in cells.items()}
    arrays = training.tokenise(word_tokenizer(), rows, TOKENS)
    for name in [name for name in arrays if name.endswith("input_ids")]:
        arrays[name] = ids()
        labels = name.replace("input_ids", "labels")
        if objective in ANSWERING:
            arrays[labels] = np.where(arrays[labels] == IGNORED, IGNORED, arrays[name])
    return arrays


def captured(model: torch.nn.Module, stacks: tuple[Stack, ...]) -> str:
    """Capture the states of some rows; return how they differ from ``output_hidden_states``.

    '' where they do not. The last is left out, which transformers takes behind the final norm;
    Mamba and RWKV leave out the first one.
    """
    ids = torch.from_numpy(_arrays("clm")["input_ids"]).long()[:3]
    places = torch.tensor([(0, 3), (1, 5), (1, 9), (2, 15)])
    rows = ProbeRows(ids, places[:, 0], places[:, 1])
    pretrained = PretrainedModel(model, None, measure_facts(model, stacks=stacks))
    backbone = pretrained.backbone
    states = capture(backbone, stacks, rows, CPU)
    assert len(states) == sum(stack.depth + 1 for stack in stacks)
    assert all(state.isfinite().all() for state in states)
    with torch.no_grad():
        output = backbone.eval()(**inputs_of(backbone, ids), output_hidden_states=True)
    for stack in stacks:
        mine, states = states[: stack.depth + 1], states[stack.depth + 1 :]
        name = f"{stack.name}_hidden_states" if stack.name else "hidden_states"
        theirs = getattr(output, name, None) or ()
        if len(theirs) != len(mine):
            return f"{len(theirs)} {name}, {len(mine)} captured"
        wanted = [_rows_of(other, stack, rows) for other in theirs[:-1]]
        if not (_equal(mine[:-1], wanted) or _equal(mine[1:], wanted)):
            return f"{name} differ"
    return ""


def _rows_of(states: torch.Tensor, stack: Stack, rows: ProbeRows) -> torch.Tensor:
    if states.shape[:2] != rows.input_ids.shape:
        states = states.movedim(stack.axes, (0, 1))
    return states.flatten(2)[rows.sequence, rows.position]


def _equal(mine: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(
        a.shape == b.shape and torch.allclose(a, b, atol=1e-4)
        for a, b in zip(mine, theirs, strict=False)
    )


# ----------------------------------------------------------------------------------------- on disk
@cache
def tokenizer() -> Any:
    """Return a tokenizer with every special token that an objective asks for."""
    made = build_tokenizer(
        StandinModel(
            standin="bert", vocabulary=300, pretrain_steps=1, pretraining="mlm", digest="0" * 64
        )
    )
    made.add_tokens([f"<extra_id_{k}>" for k in range(8)], special_tokens=True)
    return made


def saved(model: torch.nn.Module, pretraining: str, folder: Path) -> ModelSpec:
    """Save a tiny model with a tokenizer; return its specification."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    source = FolderModel(
        folder=str(folder),
        digest=folder_digest(folder, trusted=False),
        pretraining=pretraining,
    )
    return ModelSpec(name="tiny", source=source)
