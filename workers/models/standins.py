"""Stand-ins: tiny models of a family's own class, as they are before ``workers.pretraining``.

They make every part of a study run without a download: the same class, block layout, objective and
tokenizer machinery as the published model, and a few hundred thousand parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    BertConfig,
    CodeGenConfig,
    GPT2Config,
    GPTNeoXConfig,
    MambaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RwkvConfig,
)

from sweeps.sources.corpora import (
    ALIGNMENT,
    INSTRUCTION,
    STANDIN_CORPORA,
    TASKS,
    corpus_rows,
)
from sweeps.spec import STANDIN_POSITIONS, StandinModel
from workers.models.looped_gpt2 import LoopedGPT2Config
from workers.models.pretrained import quiet_config

# Who speaks in a conversation of the made-up language, and the template that says so.
SPEAKERS = ("<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@torch.no_grad()
def let_tokens_through(model: torch.nn.Module) -> None:
    """Start OPT's position embeddings small and its projections at the scale of their input.

    As they are initialised for models a thousand times larger, a token is so faint beside its
    position in the first norm that hundreds of steps of a post-norm stand-in end at the entropy of
    single tokens: it learns no word from the word before.
    """
    for name, module in model.named_modules():
        kind = name.rpartition(".")[2]
        if isinstance(module, torch.nn.Embedding) and kind == "embed_positions":
            module.weight *= 0.1
        elif isinstance(module, torch.nn.Linear) and kind in ("project_in", "project_out"):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)


@torch.no_grad()
def order_positions(model: torch.nn.Module) -> None:
    """Start an encoder's position embeddings as sinusoids of the scale they have already.

    From random ones, which say nothing of which places are near, a masked language model of this
    size spends all its steps at the entropy of single tokens before it looks at a neighbour.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.endswith("position_embeddings"):
            places, width = module.weight.shape
            rates = 10_000 ** (-2 * torch.arange(width // 2) / width)
            angles = torch.arange(places)[:, None] * rates
            waves = torch.cat([angles.sin(), angles.cos()], dim=1)
            module.weight.copy_(waves * 2**0.5 * module.weight.std())


def build_tokenizer(source: StandinModel) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the corpus, framed as the family's own tokenizer is."""
    encoder = source.pretraining == "mlm"
    speaks = source.language == "made_up"
    special = ["<pad>", "<s>", "</s>", "<mask>"] if encoder else ["<|endoftext|>"]
    special += SPEAKERS if speaks else ()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=source.vocabulary,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(source), trainer)
    if not encoder:
        end = special[0]
        made = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=end,
            eos_token=end,
            pad_token=end,
            **({"additional_special_tokens": list(SPEAKERS)} if speaks else {}),
        )
        if speaks:
            made.chat_template = CHAT_TEMPLATE
        return made
    ids = {token: tokenizer.token_to_id(token) for token in special}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
    )


def _texts(source: StandinModel) -> Iterator[str]:
    """Yield what a stand-in's tokenizer has to know the words of."""
    for row in corpus_rows(STANDIN_CORPORA[source.language]):
        yield row["text"]
    for corpus in (INSTRUCTION, ALIGNMENT, TASKS) if source.language == "made_up" else ():
        for row in corpus_rows(corpus):
            yield row["prompt"][0]["content"]
            yield row["completion"]


def build_config(source: StandinModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """Return the family's own configuration at the stand-in's size, without dropout."""
    layers, width = source.layers, source.width
    tokens = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    # CodeGen stores its projections in four shards of heads, so heads come in fours.
    heads = 4 * max(1, width // 128)
    wide = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": STANDIN_POSITIONS,
    }
    # gelu_new, as GPT-2 and CodeGen have it, in one operation in place of eight.
    narrow = {
        "n_embd": width,
        "n_layer": layers,
        "n_head": heads,
        "n_positions": STANDIN_POSITIONS,
        "activation_function": "gelu_pytorch_tanh",
    }
    encoder = {**wide, "intermediate_size": 4 * width}
    makers: dict[str, Callable[[], PreTrainedConfig]] = {
        "bert": lambda: BertConfig(**tokens, **encoder),
        "roberta": lambda: RobertaConfig(**tokens, **encoder),
        # One block, called ``layers`` times.
        "albert": lambda: AlbertConfig(**tokens, **encoder, embedding_size=width // 2),
        "gpt2": lambda: GPT2Config(**tokens, **narrow),
        "looped_gpt2": lambda: LoopedGPT2Config(
            **tokens, **narrow, iterations=source.iterations or layers
        ),
        "opt": lambda: OPTConfig(**tokens, **wide, ffn_dim=4 * width, word_embed_proj_dim=width),
        # The layout of opt-350m: norm after each residual, narrower embedding, projections.
        "opt_post_norm": lambda: OPTConfig(
            **tokens,
            **wide,
            ffn_dim=4 * width,
            word_embed_proj_dim=width // 2,
            do_layer_norm_before=False,
        ),
        "gpt_neox": lambda: GPTNeoXConfig(**tokens, **encoder, use_parallel_residual=True),
        "codegen": lambda: CodeGenConfig(
            **tokens, **narrow, rotary_dim=width // heads // 2, tie_word_embeddings=False
        ),
        "mamba": lambda: MambaConfig(
            **tokens, hidden_size=width, num_hidden_layers=layers, state_size=8
        ),
        "rwkv": lambda: RwkvConfig(
            **tokens, hidden_size=width, num_hidden_layers=layers, context_length=STANDIN_POSITIONS
        ),
    }
    config = makers[source.standin]()
    quiet_config(config)
    return config
