"""A run's model without weights: built from its configuration alone, under fake tensors.

The configuration is that of the folder, of the hub's cache, of the catalogue, or asked of the hub:
never are weights read or fetched.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from sweeps.errors import UserError
from sweeps.spec import FolderModel, HubModel, ModelSpec, StandinModel
from workers.footprint.published import published_by_hub
from workers.footprint.word_tokenizer import TokenCount, word_tokenizer
from workers.loading import auto_class, examined_model, register_family, shorten, told
from workers.models.causality import require_causal_design
from workers.models.pretrained import (
    PretrainedModel,
    measure_facts,
    quiet_config,
    require_dropout,
)
from workers.models.standins import build_config

DETAIL = 120


class SizeUnknown(Exception):
    """A model whose configuration is not at hand; the message says why."""


def skeleton(
    model: ModelSpec, dtype: torch.dtype, *, needs_head: bool = True, dropout: bool = False
) -> PretrainedModel:
    """Return a model whose tensors have shapes alone, or at least no first values: call it under
    ``fake_numbers``.

    Raises UserError for a configuration of which transformers makes no model, or one without the
    head or the stack that is asked for; SizeUnknown where there is no configuration at hand.
    """
    source = model.source
    config = configuration(model)
    quiet_config(config, dropout=dropout)
    if dropout:
        require_dropout(model.name, config)
    auto = auto_class(model.name, config, source.pretraining, needs_head)
    trusted = not isinstance(source, StandinModel) and source.trust_remote_code
    try:
        # Some draw again until all numbers are small, which those of a fake tensor never are.
        with no_init_weights():
            language_model = auto.from_config(config, dtype=dtype, trust_remote_code=trusted)
        language_model.tie_weights()
    except (ValueError, ImportError, AttributeError, KeyError, ArithmeticError) as error:
        detail, remedy = told(error, config)
        said = f"no model can be built: {shorten(detail, DETAIL)}; {remedy}"
        raise UserError(f"model {model.name}: {said}") from error
    language_model.eval()
    examined = examined_model(model, language_model)
    facts = measure_facts(language_model, None, examined.stacks)
    return PretrainedModel(language_model, word_tokenizer(), facts, "", examined)


def require_causal_head(model: ModelSpec) -> None:
    """Raise Impossible where next tokens are asked of a model that would see them.

    To be called without ``fake_numbers``: it computes. Raises as ``skeleton`` does.
    """
    source = model.source
    if source.pretraining == "clm" and not isinstance(source, StandinModel):
        config = configuration(model)
        auto = auto_class(model.name, config, source.pretraining, needs_head=True)
        require_causal_design(model.name, auto, config, trusted=source.trust_remote_code)


def configuration(model: ModelSpec) -> PreTrainedConfig:
    """Return the configuration of a model."""
    transformers_logging.set_verbosity_error()
    source = model.source
    if isinstance(source, StandinModel):
        return build_config(source, TokenCount(source.vocabulary))
    register_family(source)
    try:
        if isinstance(source, FolderModel):
            folder, trusted = Path(source.folder), source.trust_remote_code
            return AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
        return _of_the_hub(source)
    except (OSError, SizeUnknown) as error:
        if isinstance(source, HubModel):
            raise SizeUnknown(_short(error)) from error
        raise _refused(model.name, "config.json cannot be read", error) from error
    except (ValueError, ImportError, AttributeError, KeyError) as error:
        raise _refused(model.name, "config.json names no model", error) from error


def _of_the_hub(source: HubModel) -> PreTrainedConfig:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    found = try_to_load_from_cache(source.hub, "config.json", revision=source.revision)
    if not isinstance(found, str):
        known = published_by_hub(source.hub)
        if known is not None:
            return AutoConfig.for_model(**known)
        found = hf_hub_download(source.hub, "config.json", revision=source.revision, etag_timeout=5)
    if source.trust_remote_code:
        return AutoConfig.from_pretrained(
            source.hub, revision=source.revision, trust_remote_code=True
        )
    return AutoConfig.from_pretrained(Path(found).parent, trust_remote_code=False)


def _refused(name: str, what: str, error: Exception) -> UserError:
    return UserError(f"model {name}: {what}: {_short(error)}")


def _short(error: Exception) -> str:
    return shorten(str(error), DETAIL)
