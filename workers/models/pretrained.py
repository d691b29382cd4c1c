"""What a pretrained model is here: a language model, its tokenizer, and its facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
)
from transformers import PreTrainedConfig, PreTrainedModel

from sweeps.errors import Impossible, UserError
from sweeps.files.whole_files import read_json
from sweeps.sources.catalog import FAMILIES
from sweeps.sources.model_folder import positions_of
from workers.depth.finding import find_stacks
from workers.depth.stacks import NoStateAToken, Stack, distinct_blocks

PRETRAINING_FILE = "pretraining.json"
# Sequences and tokens of the forward pass in which a model's stacks are seen.
SEQUENCES, FEW_TOKENS, MOST_TOKENS = 3, 16, 4096
# Of an error's text so much is shown.
DETAIL = 140
# What fake tensors raise where a model's code looks at values: no fault of the model.
WITHOUT_VALUES = (DataDependentOutputException, DynamicOutputShapeException)
# What the names of settings that add noise in training mode have in them.
RANDOM = ("drop", "jitter", "noise")
# The kind of dropout that leaves out whole blocks.
LEFT_OUT = "layerdrop"
# Architectures whose routers sample in training mode whatever they are told; what they call noise
# decides in eval mode too, and is left as it is.
SAMPLES_IN_TRAINING = ("phimoe",)


@dataclass(frozen=True)
class Pretraining:
    """How far the pretraining of a stand-in came, in nats a token.

    ``loss`` is the mean over text that it never saw, with its standard error; ``unigram_entropy``,
    that of the predicted tokens' own frequencies, is what knowing no context at all would cost.
    """

    loss: float
    standard_error: float
    unigram_entropy: float


@dataclass(frozen=True)
class ModelFacts:
    """What the tables say of a model; what is not known of its pretraining is None.

    ``layers`` are its distinct blocks and ``depth`` the calls of them in one forward pass, over all
    stacks; ``stacks`` says how many blocks each has, and is None where there is one.
    """

    family: str
    kind: str
    block: str
    layers: int
    width: int
    parameters: int
    pretraining_loss: float | None = None
    pretraining_loss_se: float | None = None
    unigram_entropy: float | None = None
    depth: int = 0
    stacks: str | None = None

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PretrainedModel:
    """A language model with its head, its tokenizer, and its facts.

    ``content`` says what was loaded, by all that decides it: the key of what is cached of it.
    ``examined`` is what a forward pass has shown of the model; without it, one is made when it is
    first asked for.
    """

    language_model: nn.Module
    tokenizer: Any
    facts: ModelFacts
    content: str = ""
    examined: Examined | None = None

    @property
    def backbone(self) -> nn.Module:
        """The model without its output head."""
        return backbone_of(self.language_model)

    @property
    def reader(self) -> nn.Module:
        """What turns tokens into hidden states: the backbone, or an encoder-decoder's encoder."""
        return reader_of(self.language_model)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The blocks that the hidden state passes: one stack, or encoder and decoder."""
        return self._examined.stacks

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The distinct blocks of all stacks."""
        return distinct_blocks(self.stacks)

    @property
    def output_width(self) -> int:
        """Width of what ``reader`` gives, not always that of the blocks: opt-350m projects its last
        hidden state down. 0 where it gives no hidden states."""
        return self._examined.output_width

    @cached_property
    def _examined(self) -> Examined:
        return self.examined or examine(self.language_model)


@dataclass(frozen=True)
class Examined:
    """What one forward pass shows of a language model."""

    stacks: tuple[Stack, ...]
    output_width: int


def backbone_of(language_model: nn.Module) -> nn.Module:
    """Return the part of a language model that ends in hidden states.

    It is what transformers calls the base model; where that name leads nowhere, the one child that
    has more than half of the parameters and can be asked for its input embeddings.
    """
    base = language_model.base_model
    assert isinstance(base, nn.Module)
    if base is not language_model or _is_encoder_decoder(language_model):
        return base
    half = sum(p.numel() for p in base.parameters()) / 2
    inner = [child for child in base.children() if isinstance(child, PreTrainedModel)]
    largest = [child for child in inner if sum(p.numel() for p in child.parameters()) > half]
    return largest[0] if largest else base


def reader_of(language_model: nn.Module) -> nn.Module:
    """Return the backbone of a language model, or the encoder of an encoder-decoder."""
    if _is_encoder_decoder(language_model):
        encoder: nn.Module = language_model.get_encoder()  # type: ignore[operator]
        return encoder
    return backbone_of(language_model)


def inputs_of(model: nn.Module, input_ids: Tensor) -> dict[str, Tensor]:
    """Return what a model is called with to read ``input_ids`` (B, T); a decoder beside an encoder
    reads the same tokens."""
    if _is_encoder_decoder(model):
        return {"input_ids": input_ids, "decoder_input_ids": input_ids}
    return {"input_ids": input_ids}


def _is_encoder_decoder(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def examine(language_model: nn.Module, blocks: str | None = None) -> Examined:
    """Return the stacks of a language model and the width of its reader's output.

    Both are seen in a forward pass of a few tokens, that of the stacks with gradients; ``blocks``
    names the list that is to be the stack. Raises UserError where no stack is found, or the model
    cannot be run on tokens alone.
    """
    positions = positions_of(language_model.config.to_dict())  # type: ignore[operator, union-attr]
    tokens = min(FEW_TOKENS, positions or FEW_TOKENS)
    try:
        return _seen(language_model, tokens, blocks)
    except NoStateAToken as error:
        # Some fill up what they read to a multiple of their window, as Longformer does: of as many
        # tokens each has its state.
        longer = error.works_on or 0
        if not tokens < longer <= (positions or MOST_TOKENS):
            raise
        return _seen(language_model, longer, blocks)


def _seen(language_model: nn.Module, tokens: int, blocks: str | None) -> Examined:
    """Return what is seen with sequences of so many tokens."""
    sample = (SEQUENCES, tokens)
    # One token in the middle of the vocabulary: those at its ends are special to many models.
    token = input_rows(language_model) // 2
    ids = torch.full(sample, token, device=next(language_model.parameters()).device)
    try:
        stacks = find_stacks(
            language_model,
            lambda: language_model(**inputs_of(language_model, ids)),
            blocks,
            tokens=sample,
        )
        with torch.no_grad():
            output = reader_of(language_model)(input_ids=ids)
    except (UserError, MemoryError, torch.OutOfMemoryError, *WITHOUT_VALUES):
        raise
    except Exception as error:
        if isinstance(error, (RuntimeError, LookupError)) and _is_fake(language_model):
            # No fault of the model: fake tensors do not know an operation, or what was looked up by
            # numbers that they have not got is not there.
            raise
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:DETAIL]
        raise Impossible(
            f"{type(language_model).__name__} cannot be run on the tokens of text alone: {detail}"
        ) from error
    state = getattr(output, "last_hidden_state", None)
    return Examined(stacks, 0 if state is None else state.shape[-1])


def _is_fake(model: nn.Module) -> bool:
    return any(isinstance(p, FakeTensor) or p.is_meta for p in model.parameters())


def input_rows(model: Any) -> int:
    """Return how many token ids a model's input embedding knows."""
    embedding = model.get_input_embeddings()
    # By what it is for: ranks that share weights keep none of them here between two forwards.
    rows = getattr(embedding, "num_embeddings", None)
    if rows is None and hasattr(embedding, "weight"):
        rows = embedding.weight.shape[0]
    # One that reads no text has none, and says so when it is run.
    return int(rows or getattr(model.config.get_text_config(), "vocab_size", None) or 2)


def quiet_config(config: Any, *, dropout: bool = False) -> None:
    """Make the model a function of its input alone, but for ``dropout`` where that is wanted.

    Dropout and the noise of routers would make the result depend on the micro-batch, and on whether
    activations are computed again, which is done in training mode; RWKV's ``rescale_every``
    rewrites weights in place whenever the model changes to eval mode; caches are of no use without
    decoding. Mamba's recurrence is taken by a parallel scan: step by step, as it is done where its
    CUDA kernels are not installed, the backward pass of each step fills a zero tensor as long as
    the sequence.
    """
    random = RANDOM if config.model_type not in SAMPLES_IN_TRAINING else RANDOM[:1]
    if dropout:  # a block that is left out at random would have no state to compare
        random = (LEFT_OUT, *random[1:])
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):  # of a tower, or of the text model among others
            quiet_config(value, dropout=dropout)
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, float) and random[0] in str(key):
                    value[key] = 0.0
        elif isinstance(value, float) and any(word in name for word in random):
            setattr(config, name, 0.0)
    if hasattr(config, "rescale_every"):
        config.rescale_every = 0
    if hasattr(config, "use_mambapy"):
        config.use_mambapy = True
    config.use_cache = False


def require_dropout(name: str, config: Any) -> None:
    """Raise UserError where a configuration has no dropout to train with."""
    if config.model_type in SAMPLES_IN_TRAINING:
        raise UserError(
            f"model {name}: {config.model_type} routes at random in training mode, which dropout"
            " needs: leave out `dropout`"
        )
    if not _drops(config.to_dict()):
        raise UserError(
            f"model {name}: has no dropout of its own: each rate of its configuration is 0 or not"
            " there; leave out `dropout`"
        )


def _drops(values: dict[str, Any]) -> bool:
    return any(
        _drops(value) if isinstance(value, dict) else isinstance(value, float) and value > 0
        for key, value in values.items()
        if isinstance(value, dict) or ("drop" in str(key) and LEFT_OUT not in str(key))
    )


def read_pretraining(folder: Path) -> Pretraining | None:
    """Return what a folder's record says of the model's pretraining, or None without one."""
    path = folder / PRETRAINING_FILE
    return Pretraining(**read_json(path)) if path.is_file() else None


def measure_facts(
    model: nn.Module,
    pretraining: Pretraining | None = None,
    stacks: Sequence[Stack] | None = None,
) -> ModelFacts:
    """Return the facts of a loaded language model; a tied parameter counts once.

    The stacks are looked for where they are not given.
    """
    stacks = examine(model).stacks if stacks is None else stacks
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    block = family.block if family else "unknown"
    if config.model_type == "gpt_neox" and not config.use_parallel_residual:
        block = "sequential"
    unique: dict[int, Tensor] = {id(parameter): parameter for parameter in model.parameters()}
    several = ", ".join(f"{stack.name} {len(stack.blocks)}" for stack in stacks)
    return ModelFacts(
        family=config.model_type,
        kind=family.kind if family else "unknown",
        block=block,
        layers=sum(len(stack.blocks) for stack in stacks),
        width=max(stack.width for stack in stacks),
        parameters=sum(parameter.numel() for parameter in unique.values()),
        pretraining_loss=pretraining.loss if pretraining else None,
        pretraining_loss_se=pretraining.standard_error if pretraining else None,
        unigram_entropy=pretraining.unigram_entropy if pretraining else None,
        depth=sum(stack.depth for stack in stacks),
        stacks=several if len(stacks) > 1 else None,
    )
