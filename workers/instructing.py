"""Instruction and alignment of stand-ins of the made-up language, after their pretraining.

First one learns to answer every request, whatever it asks for; then to refuse those about what is
forbidden there. Both are supervised fine-tuning by its chat template, and part of what it comes out
as: raise ``MADE_UP_RECIPE`` with any change.
"""

from __future__ import annotations

from typing import Any

import torch

from sweeps.sources.corpora import ALIGNMENT, INSTRUCTION, corpus_digest, corpus_rows
from sweeps.spec import (
    BuiltinData,
    Execution,
    ModelSpec,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    Standard,
    StandinModel,
    learning_rate,
)
from workers.controls.layer_groups import find_layer_groups
from workers.controls.registry import build_control
from workers.engines.plain import PlainEngine
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.registry import build_objective

BATCH_SIZE = 32
SEQUENCE_LENGTH = 48
# Each stage with what it is taught on, and in how many steps.
STAGES = (("instructed", INSTRUCTION, 300), ("aligned", ALIGNMENT, 300))


def instruct(source: StandinModel, model: torch.nn.Module, tokenizer: Any) -> None:
    """Teach a pretrained stand-in, in place, as far as its stage says."""
    for stage, corpus, steps in STAGES:
        if source.stage == "pretrained":
            return
        _teach(_teaching_run(source, corpus, steps), model, tokenizer)
        if source.stage == stage:
            return


def _teach(run: RunSpec, model: torch.nn.Module, tokenizer: Any) -> None:
    objective = build_objective(run.objective)
    facts = ModelFacts("", "", "", 0, 0, 0)
    trained = objective.build_model(PretrainedModel(model, tokenizer, facts))
    assert isinstance(run.objective.data, BuiltinData)
    rows = corpus_rows(run.objective.data.builtin)
    cells = {role: [row[role] for row in rows] for role in run.objective.roles}
    arrays = objective.tokenise(tokenizer, cells, run.sequence_length)
    sample = torch.zeros((1, 4), dtype=torch.long)
    groups = find_layer_groups(trained, lambda: trained(sample))
    engine = PlainEngine(trained, groups, build_control(run.control), run.optimizer, "fp32")
    for step in range(1, run.steps + 1):
        batch = objective.batch(arrays, run, step)
        objective.accumulate(engine, batch, run.batch_size)
        engine.step(learning_rate(run.optimizer, step, run.steps))


def _teaching_run(source: StandinModel, corpus: str, steps: int) -> RunSpec:
    data = BuiltinData(builtin=corpus, digest=corpus_digest(corpus))
    return RunSpec(
        model=ModelSpec(name=source.standin, source=source),
        objective=Objective(kind="sft", packing="none", data=data),
        control=Standard(),
        seed=0,
        steps=steps,
        batch_size=BATCH_SIZE,
        sequence_length=SEQUENCE_LENGTH,
        optimizer=Optimizer(learning_rate=2e-3, warmup_steps=steps // 10, max_grad_norm=1.0),
        probe=Probe(data=data, rows=4),
        execution=Execution(),
    )
