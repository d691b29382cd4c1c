"""Arrays in one safetensors file, written in chunks and mapped when read: of a billion tokens only
what a batch needs is ever in memory."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

Arrays = dict[str, NDArray[Any]]
# Smaller arrays are read whole: it takes no longer, and a file that goes meanwhile is not missed.
MAPPED_BYTES = 64 * 2**20
CHUNK_BYTES = 16 * 2**20
# https://github.com/huggingface/safetensors#format
_TYPES = {
    **{"bool": "BOOL", "uint8": "U8", "int16": "I16", "int32": "I32", "int64": "I64"},
    **{"float16": "F16", "float32": "F32", "float64": "F64"},
}


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> None:
    """Write arrays in safetensors' format, a chunk at a time."""
    kinds = {n: (_TYPES[a.dtype.name], a.shape, a.nbytes) for n, a in arrays.items()}
    with path.open("wb") as file:
        file.write(header_of(kinds, metadata))
        for array in arrays.values():
            for piece in pieces(array):
                file.write(piece.tobytes())


def header_of(
    tensors: Mapping[str, tuple[str, Sequence[int], int]], metadata: dict[str, str] | None = None
) -> bytes:
    """Return how a safetensors file begins: its length in eight bytes, and a header that ends at a
    multiple of eight. ``tensors`` are by name the type's word, shape and bytes of each, in order.
    """
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, (kind, shape, size) in tensors.items():
        begin, end = end, end + size
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array flat, some MiB at a time; what is mapped is let go of again after each."""
    flat = np.ascontiguousarray(array).reshape(-1)
    step = max(1, CHUNK_BYTES // flat.itemsize)
    for start in range(0, flat.size, step):
        yield flat[start : start + step]
        mapped = getattr(array, "_mmap", None)
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)


def read_arrays(path: Path, metadata: dict[str, str], *, mapped: bool = False) -> Arrays | None:
    """Return the arrays of a file, large ones read-only and not in memory where ``mapped``; None
    where there is no whole file, or its metadata is other than ``metadata``."""
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}) != metadata:
                return None
            if not mapped or path.stat().st_size < MAPPED_BYTES:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _mapped(path)
    except (FileNotFoundError, SafetensorError):
        return None


def _mapped(path: Path) -> Arrays:
    types = {kind: name for name, kind in _TYPES.items()}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found: Arrays = {}
    for name, entry in header.items():
        kind, shape = types[entry["dtype"]], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        # Of nothing there is no map.
        if begin == end:
            found[name] = np.empty(shape, kind)
        else:
            place = 8 + length + begin
            found[name] = np.memmap(path, dtype=kind, mode="r", offset=place, shape=shape)
    return found


def highest_token(arrays: dict[str, NDArray[Any]]) -> int:
    """Return the largest token id in arrays of tokens."""
    return max(
        int(piece.max())
        for name, a in arrays.items()
        if name.endswith("input_ids")
        for piece in pieces(a)
    )


def examples_of(arrays: Arrays) -> int:
    """Return how many examples an objective's arrays hold."""
    return min(len(array) for name, array in arrays.items() if name.endswith("input_ids"))
