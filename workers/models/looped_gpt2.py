"""GPT-2 with a loop for its depth: a few blocks that a forward pass runs through again and again.

A decoder beside ALBERT, whose one block is an encoder's. transformers has no causal model that is
all loop: HRM-Text has two stacks, and lets gradients through its last turns alone; Zamba shares one
block among many of their own. So here GPT-2's own blocks, embeddings and head are taken as they
are, as a universal transformer without halting (Dehghani et al. 2019) or a model of recurrent depth
without prelude and coda (Geiping et al. 2025): what a turn gives is what the next one is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

MODEL_TYPE = "looped_gpt2"


class LoopedGPT2Config(GPT2Config):  # type: ignore[misc]
    """``n_layer`` is the calls of blocks in one forward pass, as ALBERT's ``num_hidden_layers`` is,
    and ``iterations`` the turns that they are made in: ``n_layer / iterations`` distinct blocks."""

    model_type = MODEL_TYPE

    def __init__(self, iterations: int = 2, **others: Any) -> None:
        """Raises ValueError where the calls are no whole number of turns."""
        super().__init__(**others)
        if iterations < 1 or self.n_layer % iterations:
            raise ValueError(f"{self.n_layer} calls of blocks are no {iterations} turns")
        self.iterations = iterations


class Turns(nn.ModuleList):
    """Blocks, each once, that are gone through several times: call t·L + l is of block l of L."""

    def __init__(self, blocks: list[nn.Module], iterations: int) -> None:
        super().__init__(blocks)
        self._iterations = iterations

    def __iter__(self) -> Iterator[nn.Module]:
        for turn in range(self._iterations):
            block: Any
            for index, block in enumerate(super().__iter__()):
                # Keys and values that are kept for decoding are of a call, not of a block.
                block.attn.layer_idx = turn * len(self) + index
                yield block


class LoopedGPT2LMHeadModel(GPT2LMHeadModel):  # type: ignore[misc]
    """GPT-2's language model, of which the first blocks run in place of the others."""

    config_class = LoopedGPT2Config

    def __init__(self, config: LoopedGPT2Config) -> None:
        super().__init__(config)
        blocks = list(self.transformer.h)[: config.n_layer // config.iterations]
        self.transformer.h = Turns(blocks, config.iterations)


AutoConfig.register(MODEL_TYPE, LoopedGPT2Config, exist_ok=True)
AutoModelForCausalLM.register(LoopedGPT2Config, LoopedGPT2LMHeadModel, exist_ok=True)
