"""Pretrained language models under the names a sweep gives them, ready to be fine-tuned."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sweeps.catalog import FAMILIES
from sweeps.errors import UserError
from sweeps.spec import FolderModel, ModelSpec, StandinModel
from workers.controls.layer_groups import find_blocks


@dataclass(frozen=True)
class ModelFacts:
    """What the tables say of a model."""

    family: str
    kind: str
    block: str
    layers: int
    width: int
    parameters: int

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PretrainedModel:
    """A language model with its head, its tokenizer, and its facts."""

    language_model: nn.Module
    tokenizer: Any
    facts: ModelFacts

    @property
    def backbone(self) -> nn.Module:
        """The model without its output head."""
        base = self.language_model.base_model
        assert isinstance(base, nn.Module)
        return base

    @property
    def blocks(self) -> nn.ModuleList:
        return find_blocks(self.language_model)


def load_model(model: ModelSpec, cache: Path, *, needs_head: bool) -> PretrainedModel:
    """Load a model in float32 on the CPU, without dropout.

    ``needs_head`` says that the pretrained output head will be used: weights that the checkpoint
    lacks are then an error, not a fresh start. Raises UserError when the model cannot be loaded.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    source = model.source
    if isinstance(source, StandinModel):
        from workers.standins import standin_folder

        path, revision = str(standin_folder(source, cache)), None
        pickled = remote_code = False
    elif isinstance(source, FolderModel):
        path, revision = source.folder, None
        pickled, remote_code = source.pickled_weights, source.trust_remote_code
    else:
        path, revision = source.hub, source.revision
        pickled, remote_code = source.pickled_weights, source.trust_remote_code
    auto = AutoModelForCausalLM if source.pretraining == "clm" else AutoModelForMaskedLM
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=remote_code)
        quiet_config(config)
        language_model, loading = auto.from_pretrained(
            path,
            revision=revision,
            config=config,
            dtype=torch.float32,
            use_safetensors=None if pickled else True,
            trust_remote_code=remote_code,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=remote_code
        )
    except (OSError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise UserError(f"model {model.name}: cannot be loaded from {path}: {detail}") from error
    _refuse_missing(model.name, language_model, loading, needs_head)
    return PretrainedModel(language_model, tokenizer, _facts(language_model))


def quiet_config(config: Any) -> None:
    """Make the model a function of its input alone.

    Dropout would make the result depend on the micro-batch; RWKV's ``rescale_every`` rewrites
    weights in place whenever the model changes to eval mode; caches are of no use without decoding.
    """
    for name, value in config.to_dict().items():
        if ("drop" in name) and isinstance(value, float):
            setattr(config, name, 0.0)
    if hasattr(config, "rescale_every"):
        config.rescale_every = 0
    config.use_cache = False


def _refuse_missing(name: str, model: nn.Module, loading: Any, needs_head: bool) -> None:
    missing = sorted(loading["missing_keys"])
    prefix = f"{model.base_model_prefix}."
    if not needs_head:
        missing = [key for key in missing if key.startswith(prefix)]
    if missing:
        raise UserError(
            f"model {name}: its checkpoint lacks {', '.join(missing[:4])}"
            f"{' …' if len(missing) > 4 else ''}; it was not pretrained for this objective"
        )


def _facts(model: nn.Module) -> ModelFacts:
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
    )
