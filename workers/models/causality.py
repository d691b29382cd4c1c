"""Whether a language model predicts a token without having seen it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from sweeps.errors import Impossible
from workers.models.pretrained import input_rows, inputs_of

TOKENS = 8
# Of the model that stands for one: words, and parameters at most.
WORDS, LARGEST = 64, 1e8
# Of the spread of a model's logits: what it has seen of a token moves them by more, even of random
# weights, and rounding in float32 by less.
SEEN = 1e-4


def require_causal(name: str, language_model: nn.Module) -> None:
    """Raise Impossible where the last token of a sequence changes what is predicted before it.

    Such a model is told the answers that a loss of next tokens asks for: it falls, and the model
    learns nothing. Seen in a forward pass of two sequences that differ in their last token;
    ``name`` is what the error calls the model.
    """
    rows = input_rows(language_model)
    ids = torch.arange(TOKENS, device=next(language_model.parameters()).device)
    ids = (rows // 3 + ids * max(1, rows // 50)) % rows
    other = ids.clone()
    other[-1] = (other[-1] + max(1, rows // 7)) % rows
    training = language_model.training
    language_model.eval()
    try:
        with torch.no_grad():
            logits = language_model(**inputs_of(language_model, torch.stack([ids, other]))).logits
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError):
        return  # one that cannot be run so is told of where it is examined
    finally:
        language_model.train(training)
    before = logits[:, :-1]
    if float((before[0] - before[1]).abs().max()) > SEEN * float(before.std()):
        raise Impossible(
            f"model {name}: {type(language_model).__name__} sees the tokens that it is to predict,"
            " so a loss of next tokens says nothing: put `is_decoder: true` into its config.json if"
            " it was pretrained so, or take mlm, or an objective that needs no head"
        )


def require_causal_design(name: str, auto: Any, config: Any, *, trusted: bool) -> None:
    """Raise Impossible where a model of a configuration would see what it is to predict.

    Found without its weights: on two of its blocks, drawn at random, with few words. Of a model
    whose blocks are too large for that, or cannot be fewer, nothing is said: its weights are asked.

    Args:
        name: what the error calls the model.
        auto: transformers' class that makes the model, ``AutoModelForCausalLM``.
        config: the model's own configuration, which is left as it is.
        trusted: whether code that came with it may be run.
    """
    few = deepcopy(config)
    text = few.get_text_config()
    text.num_hidden_layers, text.vocab_size = min(2, text.num_hidden_layers), WORDS
    for key, value in vars(text).items():
        if key.endswith("token_id") and isinstance(value, int) and value >= WORDS:
            setattr(text, key, None if key != "pad_token_id" else 0)
        elif key == "layer_types" and value is not None:
            text.layer_types = value[: text.num_hidden_layers]
    try:
        with torch.device("meta"):
            shapes = auto.from_config(few, trust_remote_code=trusted)
        if sum(p.numel() for p in shapes.parameters()) > LARGEST:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            drawn = auto.from_config(few, dtype=torch.float32, trust_remote_code=trusted)
    except Exception:  # what cannot be made of fewer is no fault of what it is
        return
    require_causal(name, drawn)
