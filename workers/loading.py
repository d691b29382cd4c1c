"""Pretrained language models under the names a sweep gives them, ready to be fine-tuned."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)
from transformers.initialization import meta_device_safe_creation_ops
from transformers.utils import logging as transformers_logging

from sweeps.errors import Impossible, UserError
from sweeps.plugins.opened import opened
from sweeps.sources.content import folder_digest, held_to_its_digest
from sweeps.sources.model_folder import StoredTensor, require_whole, stored_tensors
from sweeps.spec import FolderModel, ModelSource, ModelSpec, StandinModel, content_id
from workers.models.causality import require_causal
from workers.models.fit import require_finite_weights, require_known_tokens
from workers.models.hub import downloaded
from workers.models.own_weights import (
    loading_from_headers,
    refuse_other_shapes,
    require_own_weights,
    require_place_for_all,
)
from workers.models.pretrained import (
    Examined,
    ModelFacts,
    PretrainedModel,
    examine,
    measure_facts,
    quiet_config,
    read_pretraining,
    require_dropout,
)
from workers.pretraining import standin_folder

# The classes that load a model with the head of its pretraining, in the order they are tried: a
# decoder may be the language model of one that reads images or hears sound, too.
WITH_HEAD: dict[str, tuple[Any, ...]] = {
    "clm": (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM),
    "mlm": (AutoModelForMaskedLM,),
    "span_corruption": (AutoModelForSeq2SeqLM,),
}
# A refusal is one line of no more characters, of which at least so many are what was raised.
LONGEST, DETAIL = 290, 80


def load_model(
    model: ModelSpec,
    cache: Path,
    *,
    needs_head: bool,
    weights: bool = True,
    dropout: bool = False,
) -> PretrainedModel:
    """Load a model in float32 on the CPU, without dropout unless it is asked for: then the model
    must have some of its own.

    ``needs_head`` says that the pretrained output head will be used: weights that the checkpoint
    lacks are then an error, not a fresh start. Without ``weights`` the model is on the meta device,
    and nothing is found out of it. Raises UserError when the model cannot be loaded.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    source = model.source
    with held_to_its_digest(source, f"model {model.name}"):
        folder = folder_of(model.name, source, cache)
        pretraining = read_pretraining(folder) if isinstance(source, StandinModel) else None
        language_model, tokenizer, loading = _load(
            model.name, source, folder, needs_head, weights, dropout
        )
        if not weights:
            unknown = ModelFacts("", "", "", 0, 0, 0)
            content, nothing = _content(source, folder), Examined((), 0)
            return PretrainedModel(language_model, tokenizer, unknown, content, nothing)
        _require_fitting(model.name, folder, language_model, loading, needs_head)
        _take_out_of_files(language_model)
        require_finite_weights(model.name, str(folder), language_model)
    examined = examined_model(model, language_model)
    if needs_head and source.pretraining == "clm":
        require_causal(model.name, language_model)
    facts = measure_facts(language_model, pretraining, examined.stacks)
    return PretrainedModel(language_model, tokenizer, facts, _content(source, folder), examined)


def require_loadable(model: ModelSpec, *, needs_head: bool) -> Any:
    """Return the tokenizer of a model's folder; raise UserError where the folder cannot be loaded,
    as far as it tells without a weight being read: from its configuration, its tokenizer, and the
    headers of its safetensors."""
    source = model.source
    assert isinstance(source, FolderModel)
    folder = Path(source.folder)
    transformers_logging.set_verbosity_error()
    language_model, tokenizer, _ = _load(model.name, source, folder, needs_head, False, False)
    stored = stored_tensors(folder)
    loading = loading_from_headers(language_model, stored) if stored else None
    if loading is not None:
        _require_fitting(model.name, folder, language_model, loading, needs_head, stored)
    if isinstance(language_model.get_input_embeddings(), nn.Embedding):  # type: ignore[operator]
        highest = max(tokenizer.get_vocab().values(), default=0)
        unknown = ModelFacts("", "", "", 0, 0, 0)
        pretrained = PretrainedModel(language_model, tokenizer, unknown, "", Examined((), 0))
        require_known_tokens(model.name, pretrained, highest, needs_head=needs_head)
    return tokenizer


def _require_fitting(
    name: str,
    folder: Path,
    model: nn.Module,
    loading: Mapping[str, Any],
    needs_head: bool,
    stored: Mapping[str, StoredTensor] | None = None,
) -> None:
    """Raise UserError where a folder's weights are not those that its configuration asks for;
    ``stored`` are its headers, read where that is needed and they are not given."""
    refuse_other_shapes(name, str(folder), loading["mismatched_keys"])
    require_own_weights(name, model, loading["missing_keys"], needs_head)
    unexpected = loading["unexpected_keys"]
    if unexpected:
        headers = stored_tensors(folder) if stored is None else stored
        require_place_for_all(name, str(folder), model, unexpected, headers)


def examined_model(model: ModelSpec, language_model: nn.Module) -> Examined:
    """Return what is seen of a model; errors say which one it is."""
    try:
        return examine(language_model, model.source.blocks)
    except Impossible as error:
        raise Impossible(f"model {model.name}: {error}") from error
    except UserError as error:
        raise UserError(f"model {model.name}: {error}") from error


def _content(source: ModelSource, folder: Path) -> str:
    """Return the key of what was loaded: of a stand-in by its files, since what pretraining comes
    out as depends on the libraries and the processor of whoever did it."""
    if isinstance(source, StandinModel):
        return folder_digest(folder, trusted=False)
    return content_id(source.identity(), 64)


def folder_of(name: str, source: ModelSource, cache: Path) -> Path:
    """Return the folder of a model on this node, made or downloaded where it is not there; errors
    call it ``name``."""
    if isinstance(source, StandinModel):
        return standin_folder(source, cache)
    if isinstance(source, FolderModel):
        return Path(source.folder)
    return downloaded(name, source)


def _load(
    name: str, source: ModelSource, folder: Path, needs_head: bool, weights: bool, dropout: bool
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Return a model, its tokenizer, and what transformers says of the loading."""
    pickled = remote_code = False
    if not isinstance(source, StandinModel):
        pickled, remote_code = source.pickled_weights, source.trust_remote_code
        # Of a folder the sweep's reader has asked; what the hub gave is seen here first.
        try:
            require_whole(folder, trusted=remote_code)
        except UserError as error:
            raise UserError(f"model {name}: {error}") from None
    register_family(source)
    config = None
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
        quiet_config(config, dropout=dropout)
        if dropout:
            require_dropout(name, config)
        auto = auto_class(name, config, source.pretraining, needs_head)
        loading: dict[str, Any] = {"mismatched_keys": []}
        if weights:
            language_model, loading = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=None if pickled else True,
                trust_remote_code=remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        else:
            with torch.device("meta"), meta_device_safe_creation_ops():
                language_model = auto.from_config(
                    config, dtype=torch.float32, trust_remote_code=remote_code
                ).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code)
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # Whatever transformers trips over in a folder is the folder's: a traceback through its
        # files helps nobody.
        where = f"model {name}: cannot be loaded from {folder}: "
        detail, remedy = told(error, config)
        most = max(DETAIL, LONGEST - len(where) - len(remedy) - 2)
        raise UserError(f"{where}{shorten(detail, most)}; {remedy}") from error
    return language_model, tokenizer, loading


def register_family(source: ModelSource) -> None:
    """Have transformers know the family of a model where it is the user's own, whose code has been
    opened; what it knew under that name before, as of another version of the code, is replaced."""
    if source.code is None or source.family is None:
        return
    mark = opened(source.code, "family", source.family)
    config = mark.target.config_class
    AutoConfig.register(source.family, config, exist_ok=True)
    WITH_HEAD[mark.details["pretraining"]][0].register(config, mark.target, exist_ok=True)


def auto_class(name: str, config: Any, pretraining: str, needs_head: bool) -> Any:
    """Return the class that loads a configuration's model with the head of its pretraining, or
    without one where none is needed; raise Impossible where it has no such head."""
    choices = WITH_HEAD[pretraining]
    for auto in (*choices, *(() if needs_head else (AutoModel,))):
        own_code = getattr(config, "auto_map", None) or {}
        if type(config) in auto._model_mapping or auto.__name__ in own_code:
            return auto
    heads = [kind for kind, autos in WITH_HEAD.items() if type(config) in autos[0]._model_mapping]
    other = f"it has one for {' and '.join(heads)}" if heads else "it has none for any text"
    raise Impossible(
        f"model {name}: {config.model_type} has no head for objective {pretraining} in"
        f" transformers; {other}: say so with `pretraining`, or use another objective"
    )


def told(error: Exception, config: Any = None) -> tuple[str, str]:
    """Return what a library raised over a model's files, in a line, and what to do about it.

    ``config`` is the model's configuration, where that could be read: what of it is not known is
    told by its key.
    """
    detail = " ".join(f"{type(error).__name__}: {error}".split())
    attention = getattr(config, "_attn_implementation", None)
    if isinstance(error, ImportError) and attention not in (None, "eager", "sdpa"):
        return f"config.json asks for attention by {attention}, not installed here", (
            "remove `_attn_implementation` and `attn_implementation` from config.json"
        )
    if isinstance(error, ImportError):
        return detail, "install what it asks for on every node"
    if type(error).__name__ == "StrictDataclassFieldValidationError":
        # It says a field twice: in front of its cause, and in it.
        return detail.partition("': ")[2] or detail, "correct config.json"
    if type(error).__name__ == "SafetensorError":
        return detail, "copy the weights again, whole"
    key = _key_of(error.args[0], config.to_dict()) if _names_a_value(error, config) else None
    if key is not None:
        return f"transformers knows no {key} {error.args[0]!r}", "give another in config.json"
    return detail, "try AutoModel.from_pretrained on it with the transformers installed here"


def _names_a_value(error: Exception, config: Any) -> bool:
    return isinstance(error, KeyError) and config is not None and len(error.args) == 1


def _key_of(value: Any, settings: Mapping[str, Any]) -> str | None:
    """Return the dotted key that has a value in a configuration; None where none has."""
    for key, found in settings.items():
        inner = _key_of(value, found) if isinstance(found, dict) else None
        if inner is not None or (isinstance(value, str) and found == value):
            return key if inner is None else f"{key}.{inner}"
    return None


def shorten(text: str, most: int) -> str:
    """Return a text in at most so many characters, cut between words."""
    return textwrap.shorten(text, most, placeholder=" …")


@torch.no_grad()
def _take_out_of_files(model: nn.Module) -> None:
    """Copy weights into memory: safetensors maps them, and a mapped file that is written to later
    would change the model that was loaded from it."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
