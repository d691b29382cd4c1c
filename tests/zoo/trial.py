"""Trials of tiny checkpoints: a training step, a probe, and what must hold of both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

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
from sweeps.sources.corpora import corpus_digest
from sweeps.spec import (
    OBJECTIVE_DEFAULTS,
    BuiltinData,
    EqualStep,
    FolderModel,
    ModelSpec,
    Objective,
    Probe,
    Standard,
    StandinModel,
)
from sweeps.store.store import Store
from tests.zoo.shrinking import shrunk
from workers.assembly import Assembly, assemble
from workers.models.pretrained import examine, inputs_of, quiet_config
from workers.models.standins import build_tokenizer
from workers.probes.capture import capture
from workers.ranks.process_group import ALONE

CPU = torch.device("cpu")
SPREAD = 1e-4
DATA = {
    kind: BuiltinData(builtin=name, digest=corpus_digest(name))
    for kind, name in (("classification", "python-packages"), ("contrastive", "python-pairs"))
}
OPTIONS = {**OBJECTIVE_DEFAULTS, "classification": {"labels": 6, "pooling": "mean"}}
CONTROLS = {"standard": Standard(), "equal_step": EqualStep()}
# The mappings of transformers that say which architectures have which head, and the class that
# makes one. The last two have no head that text is pretrained with.
KINDS: dict[str, tuple[str, Any, str]] = {
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
    "bare": ("MODEL_MAPPING_NAMES", AutoModel, "mlm"),
}
WORKS, REFUSED, BROKEN = "works", "refused", "broken"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: it works, is refused in so many words, or is broken."""

    verdict: str
    words: str = ""


def architectures(kind: str) -> list[str]:
    """Return the model types that have the head of a kind."""
    return list(getattr(modeling_auto, KINDS[kind][0]))


@cache
def tokenizer() -> Any:
    """Return a tokenizer with every special token an objective asks for."""
    made = build_tokenizer(
        StandinModel(
            standin="bert", vocabulary=300, pretrain_steps=1, pretraining="mlm", digest="0" * 64
        )
    )
    made.add_tokens([f"<extra_id_{k}>" for k in range(8)], special_tokens=True)
    return made


def checkpoint(model_type: str, kind: str, folder: Path) -> ModelSpec:
    """Save a tiny checkpoint of an architecture; raise what transformers raises where no rule makes
    one that it can build and run."""
    auto, pretraining = KINDS[kind][1:]
    refused: Exception | None = None
    for config in shrunk(model_type, len(tokenizer())):
        torch.manual_seed(0)
        try:
            quiet_config(config)
            model = auto.from_config(config).eval()
            examine(model)
        except UserError as error:
            if "cannot be run on" in str(error):
                refused = refused or error
                continue
        except Exception as error:
            refused = refused or error
            continue
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        source = FolderModel(
            folder=str(folder),
            digest=folder_digest(folder, trusted=False),
            pretraining=pretraining,
        )
        return ModelSpec(name=model_type, source=source)
    assert refused is not None
    raise refused


def objectives(pretraining: str) -> tuple[str, ...]:
    return (pretraining, "classification", "contrastive")


def tried(model: ModelSpec, kind: str, control: str, store: Store) -> Outcome:
    """Return how a run of two steps ends."""
    with _outcome() as found:
        parts = assemble(_run(model, kind, control), store, CPU, ALONE)
        _train_and_probe(parts, model, kind, control)
    return found[0] if found else Outcome(WORKS)


@contextmanager
def _outcome() -> Iterator[list[Outcome]]:
    found: list[Outcome] = []
    try:
        yield found
    except UserError as error:
        found.append(Outcome(REFUSED, str(error)))
    except Exception as error:
        found.append(Outcome(BROKEN, f"{type(error).__name__}: {error}"))


def _run(model: ModelSpec, kind: str, control: str) -> Any:
    return make_run(
        model=model,
        objective=Objective(kind=kind, data=DATA.get(kind, DOCS), **OPTIONS.get(kind, {})),
        control=CONTROLS[control],
        steps=2,
        probe=Probe(data=DOCS, rows=64, sequence_length=16),
    )


def _train_and_probe(parts: Assembly, model: ModelSpec, kind: str, control: str) -> None:
    """Take a step and measure; raise AssertionError where what must hold does not."""
    engine = parts.engine
    grouped = [id(p) for group in engine.groups for p in group.parameters]
    trainable = {id(p) for p in engine.model.parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped)), "a parameter is in two groups"
    assert set(grouped) == trainable, "groups do not cover what is trained"
    batch = parts.objective.batch(parts.arrays, _run(model, kind, control), 1)
    loss = float(parts.objective.accumulate(engine, batch, 2))
    assert loss == loss, "the loss is no number"
    lacking = [
        name for name, p in engine.model.named_parameters() if p.requires_grad and p.grad is None
    ]
    blocks = [k for k, group in enumerate(engine.groups) if group.kind == "block"]
    assert len(lacking) < len(trainable), "nothing has a gradient"
    step = engine.step(1e-3)
    if control == "equal_step":
        ratios = [step.update_norms[k] / step.weight_norms[k] for k in blocks]
        moved = [ratio for ratio in ratios if ratio > 0]
        assert moved, "no block moved"
        assert max(moved) / min(moved) - 1 < SPREAD, "blocks moved by unequal steps"
    measured = parts.probe.measure(1)
    assert measured.finite, "a state is not finite"


def capture_differs(parts: Assembly) -> str:
    """Return how captured states differ from a model's own ``output_hidden_states``, '' if not.

    The last is left out, which transformers takes behind the final norm; so are models that tell
    another number of states than they have calls.
    """
    backbone, stacks, rows = parts.probe._backbone, parts.probe._stacks, parts.probe._rows
    with torch.no_grad():
        output = backbone.eval()(**inputs_of(backbone, rows.input_ids), output_hidden_states=True)
    states = capture(backbone, stacks, rows, CPU)
    for stack in stacks:
        mine, states = states[: stack.depth + 1], states[stack.depth + 1 :]
        name = f"{stack.name}_hidden_states" if stack.name else "hidden_states"
        theirs = getattr(output, name, None)
        if theirs is None or len(theirs) != len(mine):
            return f"{name}: {0 if theirs is None else len(theirs)} states of {len(mine)}"
        for layer, (state, other) in enumerate(zip(mine[:-1], theirs[:-1], strict=True)):
            other = other.movedim(stack.axes, (0, 1)).flatten(2)
            if not torch.allclose(state, other[rows.sequence, rows.position], atol=1e-4):
                return f"{name}[{layer}] differs"
    return ""
