"""A tiny configuration of any architecture of transformers, by rules over the names of settings.

What a setting is called says what it is: layers, widths, heads, experts, positions, tokens. Lists
with an entry a layer are cut so that every kind of layer stays. What no rule knows keeps its
default; where a class refuses what comes of it, it is asked again with the next of ``AMENDMENTS``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

LAYERS, WIDTH, HEADS, HEAD, POSITIONS = 4, 64, 4, 16, 128
VOCABULARY = 0  # stands for the tokenizer's

# In order: the first of which a pattern matches the whole name decides.
RULES: tuple[tuple[int, tuple[str, ...]], ...] = (
    (2, ("num_kv_shared_layers",)),
    (LAYERS, ("(num_)?((hidden|encoder|decoder|text)_?)?(layers|blocks|hidden_layers)",)),
    (LAYERS, ("n_layers?", "num_.*_layers", "n_(encoder|decoder)_layers", "depth")),
    (64, ("encoder_hash_byte_group_vocab",)),
    (VOCABULARY, ("vocab_size_per_layer_input", ".*vocab_size.*", "n_vocab")),
    (POSITIONS, ("max_(position_embeddings|sequence_length|seq_len)",)),
    (POSITIONS, ("max_(source|target)_positions", "n_positions", "n_ctx", "seq_length")),
    (POSITIONS, ("context_length", "max_seq_len", "max_length")),
    (8, ("mamba_num_heads|num_mamba_heads|mamba_n_heads",)),
    (2, ("n_mamba_heads", "(num_)?(key_value|kv|query)_heads", "num_kv_groups")),
    (2, ("(num_key_value|num_kv|linear_num_key|num_global_key_value|index_n)_heads",)),
    (2, ("multi_query_group_num",)),
    (16, ("attention_window",)),
    (HEADS, (".*(num_heads|n_heads?|attention_heads|value_heads|num_attn_heads)",)),
    (24, ("qk_head_dim",)),
    (8, ("qk_rope_head_dim", "rotary_dim", "rope_head_dim")),
    (HEAD, ("(.*_)?head_dim", "d_kv", "kv_channels", ".*head_size")),
    (16, (".*lora_rank", ".*_rank", "q_lora.*")),
    (WIDTH, ("(hidden|embedding|attention|d)_(size|model|dim)", "dim", "n_embd", "d_model")),
    (WIDTH, ("emb_dim", "embed_dim", "d_embed", "d_latents", "qk_channels", "v_channels")),
    (WIDTH, ("(encoder|decoder|text)_?(hidden|embed)?_?(size|dim|width)",)),
    (WIDTH, ("(proj|projection|lru|output|word_embed_proj)_?(size|dim|width)",)),
    (2 * WIDTH, (".*(intermediate|ffn|inner|d_ff|mlp)_?(size|dim|hidden_size|width)?",)),
    (4, ("(num|n)_(local_|routed_|moe_)?experts", ".*num_experts")),
    (2, (".*experts_per_tok(en)?", "top_?k.*experts", "moe_top_?k", "moe_k")),
    (1, ("n_group", "topk_group", "num_expert_group", "num_shared_experts", "n_shared_experts")),
    (16, (".*sliding_window", "attention_window_size", "local_window_size")),
    (8, (".*(state_size|d_state|ssm_state)", "num_latents")),
    (4, (".*time_step_rank", ".*dt_rank")),
    (28, ("image_size",)),
    (16, ("chunk_size", "mamba_chunk_size", ".*block_size")),
)
PATTERNS = tuple((re.compile("|".join(patterns)), value) for value, patterns in RULES)
TOKEN = re.compile(r".*token_(id|index)|.*_token")
NOT_SETTINGS = ("transformers_version", "id2label", "label2id")

Amendment = dict[str, Any]
AMENDMENTS: tuple[Amendment, ...] = (
    {},
    {"head_dim": HEAD},
    {"head_dim": 8},
    {"num_key_value_heads": HEADS},
    {"num_key_value_heads": HEADS, "head_dim": HEAD},
    {"num_key_value_heads": HEADS, "head_dim": 8},
    {"n_routed_experts": 4, "num_experts_per_tok": 2},
    {"vocab_size": 300, "pad_token_id": 1, "mask_token_id": 3},
    {"layer_types": ["full_attention", "linear_attention"] * (LAYERS // 2)},
    {"num_key_value_heads": HEADS, "head_dim": 24},
    {"num_key_value_heads": HEADS, "head_dim": 8, "num_experts_per_tok": 2},
    {"layer_types": ["full_attention"] * LAYERS},
    {"layer_types": ["full_attention", "sliding_attention"] * (LAYERS // 2)},
    {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0},
    {"num_heads": 8, "head_dim": 16},
    {"is_decoder": True, "axial_pos_embds": False},
    {"axial_pos_embds": False, "max_position_embeddings": 128},
)


def shrunk(model_type: str, vocabulary: int) -> Iterator[PreTrainedConfig]:
    """Yield tiny configurations of a model type that its class accepts, the plainest first."""
    kind = CONFIG_MAPPING[model_type]
    settings = _settings(kind(), vocabulary)
    refused: Exception | None = None
    found = False
    for amendment in AMENDMENTS:
        try:
            config = kind(**{**settings, **amendment})
        except Exception as error:
            refused = refused or error
            continue
        found = True
        yield config
    if not found and refused is not None:
        raise refused


def _settings(config: PreTrainedConfig, vocabulary: int) -> dict[str, Any]:
    """Return what is to be given to a configuration's class to make it tiny."""
    found: dict[str, Any] = {}
    layers = {
        value
        for name, value in vars(config).items()
        if isinstance(value, int) and _rule(name) == LAYERS and value > LAYERS
    }
    for name, value in vars(config).items():
        if name.startswith("_") or name in NOT_SETTINGS or isinstance(value, bool):
            continue
        if isinstance(value, PreTrainedConfig):
            found[name] = {**_settings(value, vocabulary), "model_type": value.model_type}
        elif isinstance(value, (list, tuple)) and len(value) in layers:
            found[name] = _cut(list(value))
        elif isinstance(value, int) and TOKEN.fullmatch(name):
            found[name] = min(value, 9)
        elif isinstance(value, int) and (small := _rule(name)) is not None:
            small = small or vocabulary
            found[name] = small if small in (LAYERS, vocabulary) else min(value, small)
    return found


def _rule(name: str) -> int | None:
    return next((value for pattern, value in PATTERNS if pattern.fullmatch(name)), None)


def _cut(values: list[Any]) -> list[Any]:
    """Return one entry for each of the few layers, so that every kind of layer is there."""
    kinds: list[Any] = []
    for value in values:
        if value not in kinds:
            kinds.append(value)
    return [kinds[k % len(kinds)] for k in range(LAYERS)]
