"""Configurations of the catalogue's models, as far as sizes and time depend on them.

A plan of them needs neither the hub nor its cache.
"""

from __future__ import annotations

from typing import Any

from sweeps.sources.catalog import CATALOG, CatalogModel

# Heads that are no 64 wide.
HEADS = {
    "facebook/opt-1.3b": 32,
    "EleutherAI/pythia-1.4b": 16,
    "EleutherAI/pythia-2.8b": 32,
    "EleutherAI/pythia-6.9b": 32,
    "Salesforce/codegen-350M-mono": 16,
}
POST_NORM = "facebook/opt-350m"
NEOX = {"rotary_pct": 0.25, "use_parallel_residual": True, "tie_word_embeddings": False}


def published(known: CatalogModel) -> dict[str, Any]:
    """Return the configuration of a model of the catalogue, or of one that is shaped as such."""
    width, heads = known.width, HEADS.get(known.hub, known.width // 64)
    wide = {
        "model_type": known.family,
        "vocab_size": known.vocabulary,
        "hidden_size": width,
        "num_hidden_layers": known.layers,
    }
    attention = {**wide, "num_attention_heads": heads}
    narrow = {
        "model_type": known.family,
        "vocab_size": known.vocabulary,
        "n_embd": width,
        "n_layer": known.layers,
        "n_head": heads,
    }
    mlp = {"intermediate_size": 4 * width}
    small = known.hub == POST_NORM
    by_family: dict[str, dict[str, Any]] = {
        "bert": {**attention, **mlp},
        "roberta": {**attention, **mlp, "max_position_embeddings": 514, "type_vocab_size": 1},
        "gpt2": {**narrow, "n_positions": 1024},
        "opt": {
            **attention,
            "ffn_dim": 4 * width,
            "word_embed_proj_dim": width // 2 if small else width,
            "do_layer_norm_before": not small,
            "max_position_embeddings": 2048,
        },
        "gpt_neox": {**attention, **mlp, "max_position_embeddings": 2048, **NEOX},
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
    return by_family[known.family]


def published_by_hub(hub: str) -> dict[str, Any] | None:
    """Return the configuration of a repository of the catalogue; None of others."""
    known = next((model for model in CATALOG.values() if model.hub == hub), None)
    return None if known is None else published(known)
