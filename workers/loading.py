"""Pretrained language models under the names a sweep gives them, ready to be fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sweeps.errors import UserError
from sweeps.spec import FolderModel, HubModel, ModelSpec, StandinModel
from workers.models.hub import HubUnavailable, model_folder, refusal
from workers.models.pretrained import PretrainedModel, measure_facts, quiet_config, read_pretraining
from workers.pretraining import standin_folder


def load_model(model: ModelSpec, cache: Path, *, needs_head: bool) -> PretrainedModel:
    """Load a model in float32 on the CPU, without dropout.

    ``needs_head`` says that the pretrained output head will be used: weights that the checkpoint
    lacks are then an error, not a fresh start. Raises UserError when the model cannot be loaded.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    source = model.source
    pretraining = None
    if isinstance(source, StandinModel):
        folder = standin_folder(source, cache)
        pretraining = read_pretraining(folder)
        path = str(folder)
        pickled = remote_code = False
    elif isinstance(source, FolderModel):
        path = source.folder
        pickled, remote_code = source.pickled_weights, source.trust_remote_code
    else:
        path = str(_downloaded(model.name, source))
        pickled, remote_code = source.pickled_weights, source.trust_remote_code
    auto = AutoModelForCausalLM if source.pretraining == "clm" else AutoModelForMaskedLM
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=remote_code)
        quiet_config(config)
        language_model, loading = auto.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            use_safetensors=None if pickled else True,
            trust_remote_code=remote_code,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=remote_code)
    except (OSError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise UserError(f"model {model.name}: cannot be loaded from {path}: {detail}") from error
    _refuse_missing(model.name, language_model, loading, needs_head)
    return PretrainedModel(language_model, tokenizer, measure_facts(language_model, pretraining))


def _downloaded(name: str, source: HubModel) -> Path:
    try:
        return model_folder(source)
    except HubUnavailable:
        raise
    except (OSError, ValueError) as error:
        raise refusal(error, f"model {name} ({source.hub})") from error


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
