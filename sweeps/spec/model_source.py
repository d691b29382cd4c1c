"""Where a model comes from."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from sweeps.spec.frozen import Frozen, Revision, Steps
from sweeps.spec.plugin import PluginCode
from sweeps.spec.training.block_ranges import in_order, is_block_range

Pretraining = Literal["clm", "mlm", "span_corruption"]
# What no rule can know of a model's code.
Blocks = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_]\w*(\.\w+)*$",
        description="Dotted path of the module list that is the stack, where several could be.",
    ),
]


def _freezable(entry: str) -> str:
    """Refuse what reads like a range of blocks and is none; anything else is a glob."""
    words = entry.split()
    if not words or entry != " ".join(words):
        raise ValueError(f"{entry!r} freezes nothing: words with one space between them")
    if len(words) == 1:
        return entry
    if not is_block_range(entry):
        raise ValueError(
            f"{entry!r} is none of embedding, head, `blocks 3`, `blocks 1-6` (`encoder blocks 1-6`"
            " in a model of two stacks) and a pattern of parameter names"
        )
    return entry


Freeze = Annotated[
    tuple[Annotated[str, AfterValidator(_freezable)], ...],
    AfterValidator(in_order),
    Field(
        description="What is not trained: `embedding`, `head`, `blocks 1-6` (`encoder blocks 1-6`"
        " in a model of two stacks), or a pattern of parameter names."
    ),
]


class HubModel(Frozen):
    """A model on the Hugging Face hub at a pinned commit."""

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"pickled_weights"})

    hub: str = Field(description="Repository, for instance EleutherAI/pythia-160m.")
    revision: Revision
    pretraining: Pretraining
    pickled_weights: bool = Field(
        False, description="Also load pytorch_model.bin where the revision has no safetensors."
    )
    trust_remote_code: bool = Field(False, description="Run the model code of the repository.")
    blocks: Blocks | None = None
    freeze: Freeze = ()
    family: str | None = None
    code: PluginCode | None = None


class FolderModel(Frozen):
    """A folder with config.json, *.safetensors and a tokenizer; its content is its identity."""

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"folder", "pickled_weights"})

    folder: str = Field(description="Path of the folder.")
    digest: str = Field(description="Digest of every file that loading may read.")
    pretraining: Pretraining
    pickled_weights: bool = False
    trust_remote_code: bool = False
    blocks: Blocks | None = None
    freeze: Freeze = ()
    family: str | None = None
    code: PluginCode | None = None


STANDIN_FAMILIES = (
    "bert",
    "roberta",
    "albert",
    "gpt2",
    "looped_gpt2",
    "opt",
    "opt_post_norm",
    "gpt_neox",
    "codegen",
    "mamba",
    "rwkv",
)

# Token positions of a stand-in; the recurrent ones, which have none, take any length.
STANDIN_POSITIONS = 256
RECURRENT_STANDINS = ("mamba", "rwkv")
# Of these one block is called again and again: ``layers`` are its calls. Of some it may be a few
# blocks, one after the other in each of ``iterations`` turns.
TIED_STANDINS = ("albert", "looped_gpt2")
ITERATED_STANDINS = ("looped_gpt2",)


# What a stand-in's language is: that of docstrings, or the made-up one in which there are things
# that one may not ask about; and how far it was taught there.
StandinLanguage = Literal["docs", "made_up"]
StandinStage = Literal["pretrained", "instructed", "aligned"]


class StandinModel(Frozen):
    """A tiny model of a family's own class, pretrained in place on a builtin corpus; one of the
    made-up language can also be instructed, to answer what it is asked, and aligned, to refuse what
    is forbidden there."""

    # What of other models is a setting: its blocks are known.
    blocks: ClassVar[None] = None
    family: ClassVar[None] = None
    code: ClassVar[None] = None

    standin: Literal[STANDIN_FAMILIES]  # type: ignore[valid-type]
    layers: Annotated[int, Field(ge=2, le=64)] = Field(
        6, description="Blocks; of albert and looped_gpt2, calls of the blocks that they have."
    )
    iterations: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="Of looped_gpt2: how often its blocks run, each once in every turn (default: as"
        " often as there are layers, of one block).",
    )
    width: Annotated[int, Field(ge=16, le=1024, multiple_of=16)] = 64
    vocabulary: Annotated[int, Field(ge=300, le=65536)] = 512
    pretrain_steps: Steps = 300
    pretrain_mask: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Share of tokens to predict in masked pretraining."
    )
    pretraining: Literal["clm", "mlm"]
    digest: str = Field(description="Content digest of the pretraining text.")
    language: StandinLanguage = "docs"
    stage: StandinStage = "pretrained"
    freeze: Freeze = ()

    @property
    def blocks_of_its_own(self) -> int:
        """How many distinct blocks it has."""
        if self.standin not in TIED_STANDINS:
            return self.layers
        return self.layers // (self.iterations or self.layers)

    @model_validator(mode="after")
    def _whole_turns(self) -> StandinModel:
        if self.iterations is None:
            return self
        if self.standin not in ITERATED_STANDINS:
            raise ValueError(f"iterations is of stand-ins of {', '.join(ITERATED_STANDINS)}")
        if self.layers % self.iterations:
            raise ValueError(f"layers {self.layers} are no {self.iterations} iterations of blocks")
        return self

    @model_validator(mode="after")
    def _taught_to_speak(self) -> StandinModel:
        if self.stage != "pretrained" and self.language != "made_up":
            raise ValueError(f"stage {self.stage} is of stand-ins with `language: made_up`")
        if self.language == "made_up" and self.pretraining != "clm":
            raise ValueError("language made_up is of decoders, which answer what they are asked")
        return self


ModelSource = HubModel | FolderModel | StandinModel


class ComparedModel(Frozen):
    """A checkpoint of the same architecture that a model is compared with, by the sweep's name."""

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"name"})

    name: str
    source: ModelSource

    def __str__(self) -> str:
        return self.name


class ModelSpec(Frozen):
    """A model under the name the sweep gives it; only the source enters the identity, and what it
    is compared with."""

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"name"})

    name: str
    source: ModelSource
    compare_to: Annotated[tuple[ComparedModel, ...], Field(max_length=1)] = Field(
        (), description="What its layers may go back to: that of which it was made."
    )

    @property
    def compared(self) -> ComparedModel | None:
        """What it is compared with, if anything."""
        return self.compare_to[0] if self.compare_to else None
