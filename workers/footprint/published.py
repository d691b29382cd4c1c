"""Configurations of the catalogue's models, and of those of the safety study, as far as sizes and
time depend on them.

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

_DECODER = {"tie_word_embeddings": True, "hidden_act": "silu"}
_QWEN = {**_DECODER, "model_type": "qwen2", "vocab_size": 151936, "num_key_value_heads": 2}
_QWEN_SMALL = {
    **_QWEN,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "max_position_embeddings": 32768,
}
_QWEN_LARGER = {
    **_QWEN,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "max_position_embeddings": 32768,
}
_LLAMA = {
    **_DECODER,
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
}
# Of models that are in no catalogue here: what their config.json has at the revisions that
# safety.yaml pins, as copies and derived models on the hub repeat it. Layers, heads and parameters
# (0.49, 1.54 and 1.24 billion) are also those of the Qwen2.5 report (arXiv 2412.15115, table 1) and
# of the model card of Llama 3.2.
BEYOND_THE_CATALOGUE: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-0.5B": _QWEN_SMALL,
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN_SMALL,
    "Qwen/Qwen2.5-1.5B": {**_QWEN_LARGER, "max_position_embeddings": 131072},
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN_LARGER,
    "meta-llama/Llama-3.2-1B": _LLAMA,
    "meta-llama/Llama-3.2-1B-Instruct": _LLAMA,
}


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
    """Return the configuration of a repository of the catalogue or beyond it; None of others."""
    known = next((model for model in CATALOG.values() if model.hub == hub), None)
    return BEYOND_THE_CATALOGUE.get(hub) if known is None else published(known)
