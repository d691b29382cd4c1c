"""Stand-ins: tiny models of a family's own class, pretrained in place.

They make every part of a study run without a download: the same class, block layout, objective and
tokenizer machinery as the published model, a few hundred thousand parameters, pretrained with the
family's own objective on the text of Python's documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
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

from sweeps.declaration.corpora import STANDIN_CORPUS, corpus_rows
from sweeps.files.whole_files import read_if_readable, remove_folder, whole_folder, write_json
from sweeps.spec import (
    RECURRENT_STANDINS,
    STANDIN_POSITIONS,
    BuiltinData,
    Execution,
    ModelSpec,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    Standard,
    StandinModel,
    content_id,
    learning_rate,
)
from workers.controls.layer_groups import find_layer_groups
from workers.controls.registry import build_control
from workers.engines.plain import PlainEngine
from workers.models.pretrained import (
    PRETRAINING_FILE,
    ModelFacts,
    PretrainedModel,
    Pretraining,
    quiet_config,
)
from workers.objectives.registry import build_objective

# Raise it with any change to what ``_make`` writes for one source.
STANDINS_VERSION = 1
KEY_FILE = "standin.json"
BATCH_SIZE = 16
SEQUENCE_LENGTH = 32
# The recurrences of Mamba and RWKV run step by step in Python on a CPU, and the backward pass of a
# step fills a zero tensor as long as the sequence: time grows with its square.
RECURRENT_SEQUENCE_LENGTH = 16
LEARNING_RATE = 2e-3


def standin_folder(source: StandinModel, cache: Path) -> Path:
    """Return the folder of a pretrained stand-in, making it first if the cache lacks it.

    It is known by its source, the corpus among it, and by the versions of what made it; the folder
    says so too, and one that says something else is made anew.
    """
    key = {
        "source": source.identity(),
        "version": STANDINS_VERSION,
        "transformers": version("transformers"),
    }
    folder = cache / "standins" / f"{source.standin}-{content_id(key)}"
    if not _is_of(folder, key):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _is_of(folder, key):
                remove_folder(folder)
                with whole_folder(folder) as temporary:
                    _make(source, temporary)
                    write_json(temporary / KEY_FILE, key)
    return folder


def _is_of(folder: Path, key: dict[str, Any]) -> bool:
    return read_if_readable(folder / KEY_FILE) == key


def _make(source: StandinModel, folder: Path) -> None:
    random_state = torch.get_rng_state()
    torch.manual_seed(0)
    tokenizer = build_tokenizer(source)
    config = build_config(source, tokenizer)
    auto = AutoModelForCausalLM if source.pretraining == "clm" else AutoModelForMaskedLM
    model = auto.from_config(config)
    let_tokens_through(model)
    pretraining = _pretrain(source, model, tokenizer)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    write_json(folder / PRETRAINING_FILE, asdict(pretraining))
    torch.set_rng_state(random_state)


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


def _pretrain(source: StandinModel, model: torch.nn.Module, tokenizer: Any) -> Pretraining:
    run = _pretraining_run(source)
    objective = build_objective(run.objective)
    pretrained = PretrainedModel(model, tokenizer, ModelFacts("", "", "", 0, source.width, 0))
    trained = objective.build_model(pretrained)
    arrays = objective.tokenise(
        tokenizer,
        {"text": [row["text"] for row in corpus_rows(STANDIN_CORPUS)]},
        run.sequence_length,
    )
    sample = torch.zeros((1, 4), dtype=torch.long)
    groups = find_layer_groups(trained, lambda: trained(sample))
    engine = PlainEngine(trained, groups, build_control(run.control), run.optimizer, "fp32")
    losses = []
    for step in range(1, run.steps + 1):
        batch = objective.batch(arrays, run, step)
        losses.append(float(objective.accumulate(engine, batch, run.batch_size)))
        engine.step(learning_rate(run.optimizer, step, run.steps))
    ending = losses[-max(1, run.steps // 10) :]
    return Pretraining(sum(ending) / len(ending), unigram_entropy(arrays["input_ids"]))


def unigram_entropy(tokens: NDArray[Any]) -> float:
    """Return −Σ p ln p in nats over the frequencies of tokens: the loss of knowing no context.

    What a model has learned of its language is how far its loss lies below.
    """
    counts = np.bincount(tokens.ravel())
    p = counts[counts > 0] / tokens.size
    return float(-(p * np.log(p)).sum())


def _pretraining_run(source: StandinModel) -> RunSpec:
    data = BuiltinData(builtin=STANDIN_CORPUS, digest=source.digest)
    mask = source.pretrain_mask if source.pretraining == "mlm" else None
    recurrent = source.standin in RECURRENT_STANDINS
    return RunSpec(
        model=ModelSpec(name=source.standin, source=source),
        objective=Objective(kind=source.pretraining, data=data, mask_probability=mask),
        control=Standard(),
        seed=0,
        steps=source.pretrain_steps,
        batch_size=BATCH_SIZE,
        sequence_length=RECURRENT_SEQUENCE_LENGTH if recurrent else SEQUENCE_LENGTH,
        optimizer=Optimizer(
            learning_rate=LEARNING_RATE,
            warmup_steps=source.pretrain_steps // 10,
            max_grad_norm=1.0,
        ),
        probe=Probe(data=data, rows=4),
        execution=Execution(),
    )


def build_tokenizer(source: StandinModel) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the corpus, framed as the family's own tokenizer is."""
    encoder = source.pretraining == "mlm"
    special = ["<pad>", "<s>", "</s>", "<mask>"] if encoder else ["<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=source.vocabulary,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((row["text"] for row in corpus_rows(STANDIN_CORPUS)), trainer)
    if not encoder:
        end = special[0]
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end
        )
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
        "gpt2": lambda: GPT2Config(**tokens, **narrow),
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
