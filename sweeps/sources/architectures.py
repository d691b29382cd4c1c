"""What an architecture is pretrained for, and whether it reads text: from its configuration alone.

Which classes there are for a model type is read from the tables of the transformers that is
installed here, as text and without an import, so that no list here has to follow them. A type that
they do not have, as one of a repository's own code, is known by what its configuration says.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

from sweeps.errors import UserError
from sweeps.sources.catalog import FAMILIES
from sweeps.spec import Pretraining

# Of each kind of pretraining the tables of classes that have its head, and what their names end in.
# A decoder may be the language model of one that reads images, too.
HEADS: dict[Pretraining, tuple[str, ...]] = {
    "clm": ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM"),
    "mlm": ("MASKED_LM",),
    "span_corruption": ("SEQ_TO_SEQ_CAUSAL_LM",),
}
_OF_TEXT = (
    *(table for tables in HEADS.values() for table in tables),
    *("SEQUENCE_CLASSIFICATION", "TEXT_ENCODING", "QUESTION_ANSWERING", "TOKEN_CLASSIFICATION"),
)
# Tables that say nothing of what a model reads.
_OF_ANYTHING = ("", "PRETRAINING", "RETRIEVAL")
_SPEECH = "SPEECH_SEQ_2_SEQ"
_AUTO_CLASSES: dict[str, Pretraining] = {
    "AutoModelForSeq2SeqLM": "span_corruption",
    "AutoModelForMaskedLM": "mlm",
    "AutoModelForCausalLM": "clm",
}
_TABLE = re.compile(r"^MODEL_(?:FOR_)?(\w*?)_?MAPPING_NAMES = OrderedDict\((.*?)^\)", re.M | re.S)
_ENTRY = re.compile(r'^\s+\(\s*"([^"]+)",\s*(.*)', re.M)
_WITH_HEAD = re.compile(
    r"MaskedLM|CausalLM|LMHead|PreTraining|ConditionalGeneration|MTModel|EncoderDecoderModel"
)


@cache
def _tables() -> dict[str, dict[str, set[str]]]:
    """Return the tables of transformers by name, ``MASKED_LM``: classes by model type; "" is that
    of models without a head."""
    found = importlib.util.find_spec("transformers")
    if found is None or found.origin is None:
        return {}
    path = Path(found.origin).parent / "models" / "auto" / "modeling_auto.py"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    return {
        name: {kind: set(re.findall(r'"(\w+)"', rest)) for kind, rest in _ENTRY.findall(body)}
        for name, body in _TABLE.findall(text)
    }


def _classes(model_type: str) -> dict[str, set[str]]:
    """Return the classes of a model type by table; empty for a type that is in none."""
    return {name: table[model_type] for name, table in _tables().items() if model_type in table}


def _architectures(config: dict[str, Any]) -> set[str]:
    named = config.get("architectures")
    return {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()


def pretraining_of(config: dict[str, Any]) -> Pretraining | None:
    """Return the objective that a configuration's architecture is pretrained with, if it tells.

    The class it was saved as decides where it has a head; else what heads its type has.
    """
    model_type = str(config.get("model_type", ""))
    family = FAMILIES.get(model_type)
    if family:
        return family.pretraining
    known, saved_as = _classes(model_type), _architectures(config)
    if config.get("is_encoder_decoder") is True:
        return "span_corruption" if not known or HEADS["span_corruption"][0] in known else None
    causal, masked = (known.get(HEADS[kind][0], set()) for kind in ("clm", "mlm"))
    one_way = config.get("is_decoder") is True or config.get("causal") is True
    if saved_as & (causal | masked):
        return "mlm" if saved_as & masked and not (saved_as & causal and one_way) else "clm"
    said = " ".join(saved_as)
    if "MaskedLM" in said:
        return "mlm"
    if re.search("CausalLM|LMHead|ForConditionalGeneration", said):
        return "clm"
    if masked and not one_way:
        return "mlm"
    if any(table in known for table in HEADS["clm"]):
        return "clm"
    offered = config.get("auto_map")
    of_its_own = (_AUTO_CLASSES[name] for name in _AUTO_CLASSES if name in (offered or {}))
    return next(of_its_own, None)


def require_text(config: dict[str, Any]) -> None:
    """Raise UserError for a model of images or sound, whose type transformers knows as such."""
    model_type = str(config.get("model_type", ""))
    known = [table for table in _classes(model_type) if table not in _OF_ANYTHING]
    hears = _SPEECH in known and config.get("is_encoder_decoder") is True
    if hears or (known and not any(table in known for table in _OF_TEXT)):
        raise UserError(
            f"{model_type} reads images or sound, and sweeps are of text; give a model of text"
        )


def require_head(name: str, config: dict[str, Any], kind: Pretraining) -> None:
    """Raise UserError where transformers has no class of the model type with the head that a
    pretraining objective needs."""
    model_type = str(config.get("model_type", ""))
    known = _classes(model_type)
    if not known or any(table in known for table in HEADS[kind]):
        return
    has = [other for other, tables in HEADS.items() if any(table in known for table in tables)]
    raise UserError(
        f"model {name}: transformers has no {model_type} with the head of objective {kind}"
        + (f"; it has that of {' and '.join(has)}" if has else "; take another objective")
    )


def saved_without_head(config: dict[str, Any]) -> str | None:
    """Return the class that a checkpoint was saved as where that is none with a head of a
    pretraining objective; None where it is one, or is not said."""
    saved_as = sorted(_architectures(config))
    if not saved_as or any(_WITH_HEAD.search(one) for one in saved_as):
        return None
    return saved_as[0]


def is_known(model_type: str) -> bool:
    """Return whether transformers has classes of a model type."""
    return bool(_classes(model_type))
