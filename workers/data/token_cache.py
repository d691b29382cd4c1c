"""Arrays that are made once and kept in the store's cache, by everything that decides them.

A key holds the content that went in and the version of the code that made the array. It is written
into the file, and a file that does not say the key it was asked for by is made anew: nothing that
was made of something else is ever read.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from functools import cache as once
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sweeps.errors import UserError
from sweeps.files.patience import patiently
from sweeps.files.whole_files import whole_file
from sweeps.leases.made_once import made_once
from sweeps.rows.cells import Labels
from sweeps.rows.held_out import Part
from sweeps.rows.local_rows import PLAIN_TEXT
from sweeps.sources.content import model_files, require_content, sha256_of
from sweeps.spec import DataSource, FileData, Objective, content_id
from workers.data.array_file import Arrays, read_arrays, write_arrays
from workers.data.datasets import load_rows, stream_texts
from workers.progress import PREPARATION

# Raise it with any change to what ``pack``, ``pad`` or an objective's ``tokenise`` returns.
TOKENS_VERSION = 4


class CachedArrays:
    """The place of arrays that ``key``, plain JSON data, says everything of."""

    def __init__(
        self, cache: Path, room: str, key: dict[str, Any], *, mapped: bool = False
    ) -> None:
        """With ``mapped``, large arrays are not read into memory."""
        self._mapped = mapped
        self._key = json.dumps(key, sort_keys=True)
        self.path = cache / room / f"{content_id(key, 24)}.safetensors"

    def read(self) -> Arrays | None:
        """Return the arrays, or None where there are none of this key that can be read."""
        return read_arrays(self.path, {"key": self._key}, mapped=self._mapped)

    def write(self, arrays: Arrays) -> None:
        """Put the arrays in place, whole, with their key; wait for a store that is full or away."""
        patiently(partial(self._write, arrays), self.path)

    def _write(self, arrays: Arrays) -> None:
        with whole_file(self.path) as temporary:
            write_arrays(temporary, arrays, {"key": self._key})


def cached_arrays(
    cache: Path, key: dict[str, Any], make: Callable[[], Arrays], subject: str = ""
) -> Arrays:
    """Return token arrays made once for everything ``key`` says, by this process or another.

    ``subject`` is what they are of, for whoever is told how far their making is.
    """
    whole = {**key, "version": TOKENS_VERSION, **_libraries()}
    entry = CachedArrays(cache, "tokens", whole, mapped=True)

    def made() -> Arrays:
        with PREPARATION.of(subject):
            arrays = make()
        entry.write(arrays)
        return entry.read() or arrays

    return made_once(entry.path, entry.read, made)


class Tokeniser(Protocol):
    """What an objective tells of how it makes arrays of its dataset."""

    objective: Objective
    held_out: bool

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        """Return arrays whose first axis is the example."""


def objective_arrays(
    objective: Tokeniser,
    tokenizer: Any,
    length: int,
    cache: Path,
    fraction: float | None = None,
) -> Arrays:
    """Return the arrays of an objective's data, of sequences of ``length`` tokens.

    With ``fraction`` that is a part of its rows: what is trained on, or where the objective is of
    what is held out, that. Raises UserError for a dataset that cannot be used, or is not what the
    run was declared with.
    """
    wanted, part = objective.objective, Part(fraction, objective.held_out)
    require_declared(wanted.data)

    def make() -> Arrays:
        try:
            if wanted.cells == PLAIN_TEXT:
                texts: Any = part.of(stream_texts(wanted.data))
                return objective.tokenise(tokenizer, {"text": texts}, length)
            rows = load_rows(wanted.data, wanted.cells, labels_of(wanted), part)
            return objective.tokenise(tokenizer, rows, length)
        except UserError as error:
            raise UserError(f"dataset {wanted.data.label}: {error}") from None

    key = {
        "objective": wanted.identity(),
        "tokenizer": tokenizer_digest(tokenizer),
        "length": length,
        **({} if fraction is None else {"fraction": fraction}),
        **({"held_out": True} if part.held_out else {}),
    }
    return cached_arrays(cache, key, make, wanted.data.label)


def labels_of(objective: Objective) -> Labels:
    """Return what is known of the labels in an objective's dataset."""
    return Labels(objective.labels, objective.label_names)


def require_declared(data: DataSource) -> None:
    """Refuse a file that was edited, also where its old tokens are known and it need not be read;
    one that is gone is not missed then."""
    if not isinstance(data, FileData) or any(path.exists() for path in data.paths):
        require_content(data, f"dataset {data.label}")


# ------------------------------------------------------------------------------------- tokenizers
def tokenizer_digest(tokenizer: Any) -> str:
    """Return SHA-256 of everything of a tokenizer that decides which tokens a text becomes.

    Of a fast one that is its definition, less the truncation and padding of the last call; of a
    slow one its vocabulary and the files it was read from. Of both, the special tokens, which two
    models with one vocabulary may have different.
    """
    special = {
        name: [str(token), tokenizer.convert_tokens_to_ids(str(token))]
        for name, token in tokenizer.special_tokens_map.items()
        if not isinstance(token, list)
    }
    definition = {
        "class": type(tokenizer).__qualname__,
        "tokens": _fast(tokenizer) if tokenizer.is_fast else _slow(tokenizer),
        "special": special,
        "special_ids": sorted(tokenizer.all_special_ids),
        "length": len(tokenizer),
        "truncation_side": tokenizer.truncation_side,
        "settings": _settings(tokenizer),
        "code": _code(type(tokenizer)),
        **({"chat_template": template} if (template := _chat_template(tokenizer)) else {}),
        "beside": _beside(tokenizer),
        "added": {
            str(number): repr(token)
            for number, token in sorted(tokenizer.added_tokens_decoder.items())
        },
    }
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


# Settings that say where a tokenizer lies or came from, of which the content counts.
_PLACES = ("name_or_path", "_commit_hash", "cache_dir")
# What a folder holds beside its tokenizer.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx")


def _settings(tokenizer: Any) -> dict[str, str]:
    """Return all that a tokenizer was made with, but for the places of its files."""
    return {
        name: repr(value)
        for name, value in sorted(tokenizer.init_kwargs.items())
        if name not in (*_PLACES, *tokenizer.vocab_files_names) and not name.endswith("_file")
    }


def _beside(tokenizer: Any) -> dict[str, str]:
    """Return the digests of the files beside a tokenizer that is no mere definition: what code that
    came with a model, or a slow tokenizer, reads is known to it alone."""
    place = Path(str(tokenizer.name_or_path or "")).absolute()
    own_code = type(tokenizer).__module__.startswith("transformers_modules")
    if not tokenizer.name_or_path or not place.is_dir() or (tokenizer.is_fast and not own_code):
        return {}
    return {
        path.relative_to(place).as_posix(): sha256_of(path)
        for path in model_files(place, trusted=True)
        if path.suffix not in _WEIGHTS
    }


def _chat_template(tokenizer: Any) -> Any:
    return getattr(tokenizer, "chat_template", None)


def _code(kind: type) -> dict[str, str]:
    """Return the digests of the files of code that came with a model; transformers' own is told by
    its version."""
    found: dict[str, str] = {}
    for each in kind.__mro__:
        if each.__module__.startswith("transformers_modules"):
            for path in Path(inspect.getfile(each)).parent.rglob("*.py"):
                found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return dict(sorted(found.items()))


def _fast(tokenizer: Any) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return definition | {"truncation": None, "padding": None}


def _slow(tokenizer: Any) -> dict[str, Any]:
    return {"vocabulary": tokenizer.get_vocab()}


@once
def _libraries() -> dict[str, str]:
    """Return the versions of the code that tokenises with us."""
    return {name: version(name) for name in ("tokenizers", "transformers")}


def arrays_digest(*arrays: NDArray[Any]) -> str:
    """Return SHA-256 over the type, shape and values of arrays, in the order given."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
