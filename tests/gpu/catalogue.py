"""Models of the catalogue at their true size, with random weights: no hub is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig

from orchestrator.sizing.activations import kept_by_family
from orchestrator.sizing.memory import ModelShape
from sweeps.declaration.expand import read_sweep
from sweeps.sources.catalog import CATALOG, FAMILIES
from sweeps.spec import PRETRAINING_OBJECTIVES, RunSpec
from workers.models.pretrained import quiet_config

PAPER = Path(__file__).resolve().parents[2] / "sweeps" / "library" / "paper.yaml"
# What a width and a number of blocks do not say. One is no model of the catalogue: it fills the
# step between 1.4 and 6.9 thousand millions of parameters.
NEOX = kept_by_family("gpt_neox")
BEYOND = {"pythia-2.8b": ModelShape(2_775_208_960, 32, 2560, 50304, NEOX)}
# What stands for any of them on a CPU, where only the code is tried.
LITTLE = ModelShape(0, 2, 64, 512, NEOX)
HEADS = {
    **{"opt-1.3b": 32, "pythia-1.4b": 16, "pythia-2.8b": 32, "pythia-6.9b": 32},
    "codegen-350M-mono": 16,
}


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
    # CodeGen has its heads in fours.
    heads = 4 if shape else HEADS.get(name, shape_of(name).width // 64)
    shape = shape or shape_of(name)
    width = shape.width
    wide = {
        "vocab_size": shape.vocabulary,
        "hidden_size": width,
        "num_hidden_layers": shape.layers,
    }
    attention = {**wide, "num_attention_heads": heads}
    narrow = {
        "vocab_size": shape.vocabulary,
        "n_embd": width,
        "n_layer": shape.layers,
        "n_head": heads,
    }
    small = name == "opt-350m"
    settings: dict[str, dict[str, Any]] = {
        "bert": {**attention, "intermediate_size": 4 * width},
        "roberta": {
            **attention,
            "intermediate_size": 4 * width,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
        },
        "gpt2": {**narrow, "n_positions": 1024},
        "opt": {
            **attention,
            "ffn_dim": 4 * width,
            "word_embed_proj_dim": width // 2 if small else width,
            "do_layer_norm_before": not small,
            "max_position_embeddings": 2048,
        },
        "gpt_neox": {
            **attention,
            "intermediate_size": 4 * width,
            "max_position_embeddings": 2048,
            "rotary_pct": 0.25,
            "use_parallel_residual": True,
            "tie_word_embeddings": False,
        },
        "codegen": {
            **narrow,
            "n_positions": 2048,
            "n_ctx": 2048,
            "rotary_dim": min(32, width // heads),
            "tie_word_embeddings": False,
        },
        "mamba": {**wide, "state_size": 16},
        "rwkv": {**wide, "context_length": 1024, "tie_word_embeddings": False},
    }
    config: PreTrainedConfig = AutoConfig.for_model(family, **settings[family])
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
