"""What a model's own files say of it before it is loaded: read as JSON and headers, without torch.

What is wrong with a folder, and what a model cannot do, is said while the sweep file is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.errors import UserError
from sweeps.rows.row_files import LFS_POINTER
from sweeps.sources.tokenizer_files import highest_added_token, tokenizer_config

SAFE_WEIGHTS = "*.safetensors"
PICKLED_WEIGHTS = "pytorch_model*.bin"
INDEX = "*.safetensors.index.json"
# What loading reads where there are others beside: one file, or else the shards of an index.
_WHOLE, _SHARDS = "model.safetensors", "model.safetensors.index.json"
# What is left of other tools that make weights of a few bits.
_QUANTIZERS = ("quantize_config.json", "quant_config.json", "quant_strategy.json")
_FLOATING = ("F64", "F32", "F16", "BF16")
_POSITION_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
_POSITIONS_OF_STACKS = ("max_encoder_position_embeddings", "max_decoder_position_embeddings")
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


@dataclass(frozen=True)
class StoredTensor:
    """What a header says of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def is_floating(self) -> bool:
        return self.dtype in _FLOATING


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


# -------------------------------------------------------------------------------- what it holds
def require_whole(folder: Path, *, trusted: bool) -> dict[str, Any]:
    """Return a model folder's configuration; raise UserError where it cannot be loaded as it is.

    Reads the configuration and the headers of weights: a file that is cut short, a pointer of Git
    LFS, a shard that is missing, quantized weights, and what ``require_trainable`` refuses.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file():
            _refuse_pointer(path)
    config = require_trainable(folder, trusted=trusted)
    for index in sorted(folder.glob(INDEX)):
        for shard in sorted(set(map(str, (_json(index).get("weight_map") or {}).values()))):
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise UserError(f"{folder}: lacks {shard}, which {index.name} names")
    headers = [_require_whole_tensors(path) for path in sorted(folder.glob(SAFE_WEIGHTS))]
    for name, entry in (item for header in headers for item in header.items()):
        # Masks and positions are whole numbers, too, and are not called weights.
        weight = "weight" in name.rpartition(".")[2] and len(entry["shape"]) > 1
        if weight and entry["dtype"] not in _FLOATING:
            raise _quantized(folder, f"{name} is {entry['dtype']}")
    return config


def require_trainable(folder: Path, *, trusted: bool) -> dict[str, Any]:
    """Return a model folder's configuration; raise UserError where its small files say that it
    cannot be fine-tuned as it is.

    Quantized weights, an adapter beside the model, code that lies in another repository, a
    tokenizer with more tokens than the model. Of a folder that has not all of its files yet, what
    is there is looked at.
    """
    config = read_config(folder)
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            method = config[key].get("quant_method") if isinstance(config[key], dict) else None
            raise _quantized(folder, str(method or key))
    for name in _QUANTIZERS:
        if (folder / name).is_file():
            raise _quantized(folder, name)
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{folder}: has an adapter (adapter_config.json) beside the model, and what is loaded"
            " would depend on whether peft is installed; merge it into the weights, or remove it"
        )
    if trusted:
        for place in (config.get("auto_map"), tokenizer_config(folder).get("auto_map")):
            elsewhere = [name for name in _flat(place) if "--" in name]
            if elsewhere:
                raise UserError(
                    f"{folder}: its code lies in another repository ({elsewhere[0]}), which no"
                    " digest covers; copy the .py files into the folder and name them without `--`"
                )
    _require_rows_for_tokens(folder, vocabulary_of(config))
    return config


def _quantized(folder: Path, how: str) -> UserError:
    return UserError(
        f"{folder}: holds quantized weights ({how}), which cannot be fine-tuned as they are; give"
        " the model in float32, bf16 or fp16"
    )


def _require_rows_for_tokens(folder: Path, rows: int | None) -> None:
    """Raise UserError where a token was added that the embedding has no row for."""
    highest = highest_added_token(folder)
    if rows is not None and highest is not None and highest[0] >= rows:
        raise UserError(
            f"{folder}: its tokenizer has token {highest[1][:40]!r} with id {highest[0]}, and the"
            f" model {rows} rows for tokens: resize it (resize_token_embeddings) and save both, or"
            " take the model's own tokenizer"
        )


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


def _require_whole_tensors(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says of its tensors; raise UserError unless it is as long as
    that says."""
    header, length = _header(path)
    whole = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    size = path.stat().st_size
    if size != whole:
        raise UserError(f"{path}: has {size} bytes of {whole}: it is cut short; copy it again")
    return header


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
                int(entry["data_offsets"][1]), math.prod(entry["shape"]), str(entry["dtype"])
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UserError(f"{path}: is no safetensors file; copy it again") from None
    return tensors, length


def stored_parameters(folder: Path) -> int | None:
    """Return how many numbers a folder's safetensors hold, of whatever type; None without any."""
    return sum(math.prod(shape) for shape in stored_shapes(folder)) or None


def stored_shapes(folder: Path) -> list[tuple[int, ...]]:
    """Return the shape of each tensor in a folder's safetensors; none where they cannot be read."""
    try:
        headers = [_header(path)[0] for path in sorted(folder.glob(SAFE_WEIGHTS))]
    except (OSError, UserError):
        return []
    return [tuple(entry["shape"]) for header in headers for entry in header.values()]


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return, by name, the tensors of the safetensors that loading reads of a folder; none where
    there are none, or they cannot be read."""
    try:
        files = {_WHOLE}
        if not (folder / _WHOLE).is_file():
            files = set(map(str, (_json(folder / _SHARDS).get("weight_map") or {}).values()))
        headers = [_header(folder / file)[0] for file in sorted(files)]
    except (OSError, UserError):
        return {}
    return {
        name: StoredTensor(tuple(entry["shape"]), str(entry["dtype"]))
        for header in headers
        for name, entry in header.items()
    }


# -------------------------------------------------------------------------------- what it can do
def positions_of(config: dict[str, Any]) -> int | None:
    """Return how many tokens a sequence may have, from a configuration; None where all are free.

    Without a limit are recurrences and, of the others, those that know distances alone.
    """
    # DeBERTa's distances are cut off where they are far, Falcon's and MPT's alibi grows with them.
    attention = config.get("attn_config")
    alibi = config.get("alibi") is True or (
        isinstance(attention, dict) and attention.get("alibi") is True
    )
    if config.get("position_biased_input") is False or alibi:
        return None
    both: list[Any] = [config.get(key) for key in _POSITIONS_OF_STACKS]
    if all(isinstance(positions, int) and positions > 0 for positions in both):
        return int(min(both))
    relative = "relative_attention_num_buckets" in config
    # T5 keeps the length it was trained at as n_positions, and has no positions.
    for key in _POSITION_KEYS[:1] if relative else _POSITION_KEYS:
        positions: Any = config.get(key)
        if isinstance(positions, int) and positions > 0:
            if config.get("model_type") in _OFFSET_FAMILIES and not _is_rotary(config):
                padding = config.get("pad_token_id")
                positions -= (padding if isinstance(padding, int) else 1) + 1
            return int(positions)
    limits = [positions_of(part) for part in _parts_of_text(config)]
    return min((limit for limit in limits if limit is not None), default=None)


def vocabulary_of(config: dict[str, Any]) -> int | None:
    """Return how many rows for tokens a configuration gives a model; None where it does not say."""
    rows = config.get("vocab_size")
    if isinstance(rows, int) and rows > 0:
        return rows
    found = [vocabulary_of(part) for part in _parts_of_text(config)]
    return min((rows for rows in found if rows is not None), default=None)


def _parts_of_text(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the configurations within one that are of what reads text: that of the language model
    beside those of images, or those of encoder and decoder."""
    inner = {name: part for name, part in config.items() if isinstance(part, dict)}
    if "text_config" in inner:
        return [inner["text_config"]]
    return [part for part in inner.values() if vocabulary_of(part) is not None]


def _is_rotary(config: dict[str, Any]) -> bool:
    return config.get("position_embedding_type") == "rotary"


def require_length(what: str, name: str, length: int, limit: int | None) -> None:
    """Raise UserError where sequences of ``length`` tokens do not fit a model's positions."""
    if limit is not None and length > limit:
        raise UserError(
            f"{what} {length} is beyond the {limit} positions of model {name}; lower it to {limit}"
        )


def no_mask_token(name: str, objective: str = "mlm") -> UserError:
    return UserError(
        f"model {name}: its tokenizer has no mask token, which objective {objective} needs; add one"
        " (`mask_token` in tokenizer_config.json), or take another objective"
    )
