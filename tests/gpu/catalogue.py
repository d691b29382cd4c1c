"""Models of the catalogue at their true size, with random weights: no hub is asked."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig

from orchestrator.sizing.activations import kept_by_family
from orchestrator.sizing.memory import ModelShape
from sweeps.declaration.expand import read_sweep
from sweeps.sources.catalog import CATALOG, FAMILIES, CatalogModel
from sweeps.spec import PRETRAINING_OBJECTIVES, RunSpec
from workers.footprint.published import published
from workers.models.pretrained import quiet_config

PAPER = Path(__file__).resolve().parents[2] / "sweeps" / "library" / "paper.yaml"
# What a width and a number of blocks do not say. One is no model of the catalogue: it fills the
# step between 1.4 and 6.9 thousand millions of parameters.
NEOX = kept_by_family("gpt_neox")
BEYOND = {"pythia-2.8b": ModelShape(2_775_208_960, 32, 2560, 50304, NEOX)}
# What stands for any of them on a CPU, where only the code is tried.
LITTLE = ModelShape(0, 2, 64, 512, NEOX)


def shape_of(name: str) -> ModelShape:
    """Return the shape of a model by its name."""
    if name in BEYOND:
        return BEYOND[name]
    known = CATALOG[name]
    kept = kept_by_family(known.family)
    return ModelShape(known.parameters, known.layers, known.width, known.vocabulary, kept)


def family_of(name: str) -> str:
    return "gpt_neox" if name in BEYOND else CATALOG[name].family


def architecture(name: str, shape: ModelShape | None = None) -> PreTrainedConfig:
    """Return the published configuration of a model, as far as sizes and time depend on it; or one
    of its family with another shape."""
    family = family_of(name)
    hub = CATALOG[name].hub if name in CATALOG else f"EleutherAI/{name}"
    own = shape or shape_of(name)
    known = CatalogModel(hub, "", family, own.layers, own.width, own.vocabulary, own.parameters)
    settings = published(known)
    if shape is not None:  # CodeGen has its heads in fours
        settings |= {key: 4 for key in ("num_attention_heads", "n_head") if key in settings}
        settings |= {"rotary_dim": own.width // 4} if family == "codegen" else {}
    config: PreTrainedConfig = AutoConfig.for_model(**settings)
    quiet_config(config)
    return config


def language_model(name: str, device: torch.device, shape: ModelShape | None = None) -> nn.Module:
    """Return a model with random weights that were drawn on ``device``, in float32."""
    masked = FAMILIES[family_of(name)].pretraining == "mlm"
    auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    with torch.device(device):
        model: nn.Module = auto.from_config(architecture(name, shape), dtype=torch.float32)
    return model


def paper_runs() -> dict[str, RunSpec]:
    """Return a run of each model of paper.yaml: the pretraining objective, no control."""
    found: dict[str, RunSpec] = {}
    for run in read_sweep(PAPER).runs:
        pretraining = run.objective.kind in PRETRAINING_OBJECTIVES
        if pretraining and run.control.kind == "standard":
            found.setdefault(run.model.name, run)
    return found


def paper_run(name: str) -> RunSpec:
    """Return the run of a model at paper.yaml's settings, also of one that it does not have."""
    runs = paper_runs()
    if name in runs:
        return runs[name]
    like = runs["pythia-1.4b"]
    return like.model_copy(update={"model": like.model.model_copy(update={"name": name})})
