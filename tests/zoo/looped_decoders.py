"""Tiny decoders that run some of their blocks several times, as published ones do."""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

WIDTH = 16


class Block(nn.Module):
    """A causal mixer and an MLP on one residual stream."""

    def __init__(self, width=WIDTH):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix, self.up, self.down = (nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden_states):
        x = self.norm(hidden_states)
        counts = torch.arange(1, x.shape[1] + 1, device=x.device)[None, :, None]
        x = hidden_states + self.mix(x.cumsum(dim=1) / counts)
        return x + self.down(torch.tanh(self.up(x)))


class LoopedConfig(PreTrainedConfig):
    """``d_model`` and no ``hidden_size``, as the configurations of many have it."""

    model_type = "looped"

    def __init__(self, shape="huginn", loops=3, vocab_size=64, d_model=WIDTH, **others):
        super().__init__(**others)
        self.shape, self.loops = shape, loops
        self.vocab_size, self.d_model = vocab_size, d_model


class Huginn(nn.Module):
    """Two blocks before, two that are run again and again, one behind; an adapter lets the input in
    at each turn (Geiping et al. 2025)."""

    def __init__(self, config):
        super().__init__()
        width, self.loops = config.d_model, config.loops
        self.prelude = nn.ModuleList(Block(width) for _ in range(2))
        self.adapter = nn.Linear(2 * width, width)
        self.core = nn.ModuleList(Block(width) for _ in range(2))
        self.coda = nn.ModuleList([Block(width)])

    def forward(self, x):
        for block in self.prelude:
            x = block(x)
        state = torch.zeros_like(x)
        for _ in range(self.loops):
            state = self.adapter(torch.cat([state, x], dim=-1))
            for block in self.core:
                state = block(state)
        for block in self.coda:
            state = block(state)
        return state


class Recursive(nn.Module):
    """One small network for two states, of which all turns but the last are without gradients
    (Jolicoeur-Martineau 2025)."""

    def __init__(self, config):
        super().__init__()
        self.loops = config.loops
        self.layers = nn.ModuleList(Block(config.d_model) for _ in range(2))

    def turn(self, x, low, high):
        for state in ("low", "low", "high"):
            z = low + high + (x if state == "low" else 0)
            for block in self.layers:
                z = block(z)
            low, high = (z, high) if state == "low" else (low, z)
        return low, high

    def forward(self, x):
        low, high = torch.zeros_like(x), torch.zeros_like(x)
        with torch.no_grad():
            for _ in range(self.loops - 1):
                low, high = self.turn(x, low, high)
        return self.turn(x, low, high)[1]


class Universal(nn.Module):
    """One block, in no list, that is run again and again."""

    def __init__(self, config):
        super().__init__()
        self.loops = config.loops
        self.norm = nn.LayerNorm(config.d_model)
        self.block = Block(config.d_model)

    def forward(self, x):
        for _ in range(self.loops):
            x = self.block(self.norm(x))
        return x


SHAPES = {"huginn": Huginn, "recursive": Recursive, "universal": Universal}


class LoopedModel(PreTrainedModel):
    config_class = LoopedConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.loop = SHAPES[config.shape](config)
        self.norm = nn.LayerNorm(config.d_model)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, **_):
        return BaseModelOutput(last_hidden_state=self.norm(self.loop(self.embed(input_ids))))


class LoopedForCausalLM(PreTrainedModel):
    config_class = LoopedConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.model = LoopedModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids, **_):
        hidden = self.model(input_ids).last_hidden_state
        return CausalLMOutput(logits=self.lm_head(hidden))


def looped(shape, **settings):
    """Return a looped language model in eval mode, seeded."""
    torch.manual_seed(0)
    return LoopedForCausalLM(LoopedConfig(shape, **settings)).eval()
