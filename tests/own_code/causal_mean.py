"""A worked example of a model family: blocks that mix a token with the mean of those before it."""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from sweeps.plugins import family


class CausalMeanConfig(PreTrainedConfig):
    model_type = "causal_mean"

    def __init__(self, vocab_size=400, hidden_size=32, num_hidden_layers=3, **others):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers = num_hidden_layers
        super().__init__(**others)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(2 * width, width)

    def forward(self, states):
        normed = self.norm(states)
        counts = torch.arange(1, states.shape[1] + 1, device=states.device)
        before = normed.cumsum(dim=1) / counts[:, None]
        return states + torch.tanh(self.mix(torch.cat([normed, before], dim=-1)))


class CausalMeanModel(PreTrainedModel):
    config_class = CausalMeanConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Block(config.hidden_size) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **others):
        del attention_mask, others
        states = self.embed_tokens(input_ids)
        for block in self.layers:
            states = block(states)
        return BaseModelOutput(last_hidden_state=self.norm(states))


@family("causal_mean", pretraining="clm")
class CausalMeanForCausalLM(PreTrainedModel):
    config_class = CausalMeanConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.model = CausalMeanModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids, attention_mask=None, **others):
        del others
        states = self.model(input_ids, attention_mask).last_hidden_state
        return CausalLMOutput(logits=self.lm_head(states))
