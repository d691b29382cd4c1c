"""What a pretrained model is here: a language model, its tokenizer, and its facts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig

from sweeps.files.whole_files import read_json
from sweeps.sources.catalog import FAMILIES
from workers.controls.layer_groups import find_blocks

PRETRAINING_FILE = "pretraining.json"
# What the names of settings that add noise in training mode have in them.
RANDOM = ("drop", "jitter", "noise")
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
    """What the tables say of a model; what is not known of its pretraining is None."""

    family: str
    kind: str
    block: str
    layers: int
    width: int
    parameters: int
    pretraining_loss: float | None = None
    pretraining_loss_se: float | None = None
    unigram_entropy: float | None = None

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PretrainedModel:
    """A language model with its head, its tokenizer, and its facts.

    ``content`` says what was loaded, by all that decides it: the key of what is cached of it.
    """

    language_model: nn.Module
    tokenizer: Any
    facts: ModelFacts
    content: str = ""

    @property
    def backbone(self) -> nn.Module:
        """The model without its output head."""
        base = self.language_model.base_model
        assert isinstance(base, nn.Module)
        return base

    @property
    def output_width(self) -> int:
        """Width of the backbone's output: what the output head reads.

        Not always that of the blocks: opt-350m projects its last hidden state down.
        """
        head = self.language_model.get_output_embeddings()  # type: ignore[operator]
        return head.in_features if isinstance(head, nn.Linear) else self.facts.width

    @property
    def blocks(self) -> nn.ModuleList:
        return find_blocks(self.language_model)


def quiet_config(config: Any) -> None:
    """Make the model a function of its input alone.

    Dropout and the noise of routers would make the result depend on the micro-batch, and on whether
    activations are computed again, which is done in training mode; RWKV's ``rescale_every``
    rewrites weights in place whenever the model changes to eval mode; caches are of no use without
    decoding. Mamba's recurrence is taken by a parallel scan: step by step, as it is done where its
    CUDA kernels are not installed, the backward pass of each step fills a zero tensor as long as
    the sequence.
    """
    random = RANDOM if config.model_type not in SAMPLES_IN_TRAINING else RANDOM[:1]
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):  # of a tower, or of the text model among others
            quiet_config(value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, float) and "drop" in str(key):
                    value[key] = 0.0
        elif isinstance(value, float) and any(word in name for word in random):
            setattr(config, name, 0.0)
    if hasattr(config, "rescale_every"):
        config.rescale_every = 0
    if hasattr(config, "use_mambapy"):
        config.use_mambapy = True
    config.use_cache = False


def read_pretraining(folder: Path) -> Pretraining | None:
    """Return what a folder's record says of the model's pretraining, or None without one."""
    path = folder / PRETRAINING_FILE
    return Pretraining(**read_json(path)) if path.is_file() else None


def measure_facts(model: nn.Module, pretraining: Pretraining | None = None) -> ModelFacts:
    """Return the facts of a loaded language model; a tied parameter counts once."""
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    block = family.block if family else "unknown"
    if config.model_type == "gpt_neox" and not config.use_parallel_residual:
        block = "sequential"
    unique: dict[int, Tensor] = {id(parameter): parameter for parameter in model.parameters()}
    return ModelFacts(
        family=config.model_type,
        kind=family.kind if family else "unknown",
        block=block,
        layers=len(find_blocks(model)),
        width=config.hidden_size,
        parameters=sum(parameter.numel() for parameter in unique.values()),
        pretraining_loss=pretraining.loss if pretraining else None,
        pretraining_loss_se=pretraining.standard_error if pretraining else None,
        unigram_entropy=pretraining.unigram_entropy if pretraining else None,
    )
