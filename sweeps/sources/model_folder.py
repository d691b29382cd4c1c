"""What a model's own files say of it before it is loaded: read as JSON and headers, without torch.

What is wrong with a folder, and what a model cannot do, is said while the sweep file is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from sweeps.errors import UserError
from sweeps.sources.catalog import FAMILIES
from sweeps.sources.row_files import LFS_POINTER
from sweeps.spec import (
    RECURRENT_STANDINS,
    STANDIN_POSITIONS,
    FolderModel,
    ModelSource,
    StandinModel,
)

SAFE_WEIGHTS = "*.safetensors"
PICKLED_WEIGHTS = "pytorch_model*.bin"
INDEX = "*.safetensors.index.json"
_POSITION_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
# Position embeddings of these families begin behind the padding token's.
_OFFSET_FAMILIES = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "roberta-prelayernorm",
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "xmod",
)
# Tokenizers that have no special token but those their files name.
_PLAIN_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")


def read_config(folder: Path) -> dict[str, Any]:
    """Return a folder's config.json; raise UserError where it is none."""
    return _json(folder / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object")
    return content


def pretraining_of(config: dict[str, Any]) -> Literal["clm", "mlm"] | None:
    """Return the objective that a configuration's architecture is pretrained with, if it tells."""
    family = FAMILIES.get(config.get("model_type", ""))
    if family:
        return family.pretraining
    architectures = " ".join(config.get("architectures") or [])
    if "MaskedLM" in architectures:
        return "mlm"
    if "CausalLM" in architectures or "LMHead" in architectures:
        return "clm"
    return None


# -------------------------------------------------------------------------------- what it holds
def require_whole(folder: Path, *, trusted: bool) -> dict[str, Any]:
    """Return a model folder's configuration; raise UserError where it cannot be loaded as it is.

    Reads the configuration and the headers of weights: a file that is cut short, a pointer of Git
    LFS, a shard that is missing, quantized weights, an adapter beside the model, code that lies in
    another repository.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file():
            _refuse_pointer(path)
    config = read_config(folder)
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            method = config[key].get("quant_method") if isinstance(config[key], dict) else None
            raise UserError(
                f"{folder}: holds quantized weights ({method or key}), which cannot be fine-tuned"
                " as they are; give the model in float32, bf16 or fp16"
            )
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{folder}: has an adapter (adapter_config.json) beside the model, and what is loaded"
            " would depend on whether peft is installed; merge it into the weights, or remove it"
        )
    if trusted:
        for place in (config.get("auto_map"), _tokenizer_config(folder).get("auto_map")):
            elsewhere = [name for name in _flat(place) if "--" in name]
            if elsewhere:
                raise UserError(
                    f"{folder}: its code lies in another repository ({elsewhere[0]}), which no"
                    " digest covers; copy the .py files into the folder and name them without `--`"
                )
    for index in sorted(folder.glob(INDEX)):
        for shard in sorted(set(map(str, (_json(index).get("weight_map") or {}).values()))):
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise UserError(f"{folder}: lacks {shard}, which {index.name} names")
    for path in sorted(folder.glob(SAFE_WEIGHTS)):
        _require_whole_tensors(path)
    return config


def _flat(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(f"{path}: is a pointer of Git LFS, not the file; git lfs pull gets it")


def _require_whole_tensors(path: Path) -> None:
    """Raise UserError unless a safetensors file is as long as its header says."""
    header, length = _header(path)
    whole = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    size = path.stat().st_size
    if size != whole:
        raise UserError(f"{path}: has {size} bytes of {whole}: it is cut short; copy it again")


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return what a safetensors file says of its tensors, and how many bytes it says it in."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise UserError(
                f"{path}: is cut short: {size} bytes are not even its header; copy it again"
            )
        try:
            header = json.loads(file.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            for entry in tensors.values():
                int(entry["data_offsets"][1]), math.prod(entry["shape"])
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UserError(f"{path}: is no safetensors file; copy it again") from None
    return tensors, length


def stored_parameters(folder: Path) -> int | None:
    """Return how many numbers a folder's safetensors hold, of whatever type; None without any."""
    try:
        headers = [_header(path)[0] for path in sorted(folder.glob(SAFE_WEIGHTS))]
    except (OSError, UserError):
        return None
    shapes = [entry["shape"] for header in headers for entry in header.values()]
    return sum(math.prod(shape) for shape in shapes) or None


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return _json(path) if path.is_file() else {}


# -------------------------------------------------------------------------------- what it can do
def positions_of(config: dict[str, Any]) -> int | None:
    """Return how many tokens a sequence may have, from a configuration; None where all are free.

    Without a limit are recurrences and, of the others, those that know distances alone.
    """
    # DeBERTa's distances are cut off where they are far, Falcon's alibi grows with them.
    if config.get("position_biased_input") is False or config.get("alibi") is True:
        return None
    text: dict[str, Any] | None = config.get("text_config")
    relative = "relative_attention_num_buckets" in config
    # T5 keeps the length it was trained at as n_positions, and has no positions.
    for key in _POSITION_KEYS[:1] if relative else _POSITION_KEYS:
        positions: Any = config.get(key)
        if isinstance(positions, int) and positions > 0:
            if config.get("model_type") in _OFFSET_FAMILIES and not _is_rotary(config):
                padding = config.get("pad_token_id")
                positions -= (padding if isinstance(padding, int) else 1) + 1
            return int(positions)
    return positions_of(text) if isinstance(text, dict) else None


def _is_rotary(config: dict[str, Any]) -> bool:
    return config.get("position_embedding_type") == "rotary"


def longest_sequence(source: ModelSource) -> int | None:
    """Return how many tokens a sequence of a model may have, where it can be told from here."""
    if isinstance(source, StandinModel):
        if source.standin in RECURRENT_STANDINS:
            return None
        # RoBERTa's first position is behind that of padding, token 0.
        return int(STANDIN_POSITIONS - (source.standin == "roberta"))
    if isinstance(source, FolderModel):
        return positions_of(read_config(Path(source.folder)))
    return None


def require_length(what: str, name: str, length: int, limit: int | None) -> None:
    """Raise UserError where sequences of ``length`` tokens do not fit a model's positions."""
    if limit is not None and length > limit:
        raise UserError(
            f"{what} {length} is beyond the {limit} positions of model {name}; lower it to {limit}"
        )


def lacks_mask_token(source: ModelSource) -> bool:
    """Return whether a model's tokenizer is seen from here to have no mask token.

    A class of its own may add one that its files do not name; the worker asks the tokenizer.
    """
    if not isinstance(source, FolderModel):
        return False
    folder = Path(source.folder)
    said = _tokenizer_config(folder)
    specials = folder / "special_tokens_map.json"
    if said.get("tokenizer_class") not in _PLAIN_TOKENIZERS:
        return False
    known = {**(_json(specials) if specials.is_file() else {}), **said}
    return not known.get("mask_token")


def no_mask_token(name: str) -> UserError:
    return UserError(
        f"model {name}: its tokenizer has no mask token, which objective mlm predicts at; add one"
        " (`mask_token` in tokenizer_config.json), or take another objective"
    )
