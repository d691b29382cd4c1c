"""Where a model comes from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sweeps.spec.frozen import Frozen, Revision, Steps


class HubModel(Frozen):
    """A model on the Hugging Face hub at a pinned commit."""

    hub: str = Field(description="Repository, for instance EleutherAI/pythia-160m.")
    revision: Revision
    pretraining: Literal["clm", "mlm"]
    pickled_weights: bool = Field(
        False, description="Also load pytorch_model.bin where the revision has no safetensors."
    )
    trust_remote_code: bool = Field(False, description="Run the model code of the repository.")

    def identity(self) -> dict[str, Any]:
        return {"hub": self.hub, "revision": self.revision}


class FolderModel(Frozen):
    """A folder with config.json, *.safetensors and a tokenizer; its content is its identity."""

    folder: str = Field(description="Path of the folder.")
    digest: str
    pretraining: Literal["clm", "mlm"]
    pickled_weights: bool = False
    trust_remote_code: bool = False

    def identity(self) -> dict[str, Any]:
        return {"folder": self.digest}


STANDIN_FAMILIES = (
    "bert",
    "roberta",
    "gpt2",
    "opt",
    "opt_post_norm",
    "gpt_neox",
    "codegen",
    "mamba",
    "rwkv",
)


class StandinModel(Frozen):
    """A tiny model of a family's own class, pretrained in place on a builtin corpus."""

    standin: Literal[STANDIN_FAMILIES]  # type: ignore[valid-type]
    layers: Annotated[int, Field(ge=2, le=64)] = 6
    width: Annotated[int, Field(ge=16, le=1024, multiple_of=16)] = 64
    vocabulary: Annotated[int, Field(ge=300, le=65536)] = 512
    pretrain_steps: Steps = 300
    pretrain_mask: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Share of tokens to predict in masked pretraining."
    )
    pretraining: Literal["clm", "mlm"]
    digest: str = Field(description="Content digest of the pretraining text.")

    def identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


ModelSource = HubModel | FolderModel | StandinModel


class ModelSpec(Frozen):
    """A model under the name the sweep gives it; only the source enters the identity."""

    name: str
    source: ModelSource
