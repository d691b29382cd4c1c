"""The file of one layer in a checkpoint: safetensors, hashed while it is written and as it is read.

Its bytes go by once in each direction: what the manifest says of a file is known when the last of
them is out, and what a file holds is known to be whole when the last of them is in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweeps.files.patience import patiently
from sweeps.files.whole_files import Place, local_file, no_guard, whole_file
from workers.controls.layer_groups import LayerGroup
from workers.data.array_file import header_of

SUFFIX = ".safetensors"
CHUNK = 1 << 24
# In so many bytes the file says how long its header is.
_LENGTH = 8


def file_name(group: LayerGroup) -> str:
    """Return what a layer's file is called; a layer's number is its own within its stack."""
    stack = f"{group.stack}-" if group.stack else ""
    return f"{stack}layer-{group.layer:04d}{SUFFIX}"


def shares(sizes: Sequence[int], ranks: int) -> list[int]:
    """Return the rank that writes each layer: the largest first, to whoever has least so far."""
    loads, writers = [0] * ranks, [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        writers[i] = loads.index(min(loads))
        loads[writers[i]] += sizes[i]
    return writers


def write_layer(
    path: Place,
    tensors: Mapping[str, Tensor],
    within: Place | None = None,
    guard: Callable[[], None] = no_guard,
    beat: Callable[[], None] = no_guard,
) -> dict[str, Any]:
    """Write float32 tensors of the CPU and return the account of the file: bytes and SHA-256.

    Waits for a store that cannot be written, as ``patiently`` does. ``beat`` is called now and then
    and raises to give up; so does ``guard``, before the file takes its place.
    """
    return patiently(partial(_write, path, tensors, within, guard, beat), path)


def _write(
    path: Place,
    tensors: Mapping[str, Tensor],
    within: Place | None,
    guard: Callable[[], None],
    beat: Callable[[], None],
) -> dict[str, Any]:
    digest = hashlib.sha256()
    written = 0
    with whole_file(path, guard, within=within) as local, local.open("wb") as file:
        for piece in (_header(tensors), *map(_bytes, tensors.values())):
            for start in range(0, len(piece), CHUNK):
                chunk = piece[start : start + CHUNK]
                file.write(chunk)
                digest.update(chunk)
                written += len(chunk)
                beat()
        file.flush()
    return {"bytes": written, "sha256": digest.hexdigest()}


def _header(tensors: Mapping[str, Tensor]) -> memoryview:
    kinds = {name: ("F32", tensor.shape, 4 * tensor.numel()) for name, tensor in tensors.items()}
    return memoryview(header_of(kinds))


def _view(content: Tensor) -> memoryview:
    numbers: Any = content.numpy()
    return memoryview(numbers)


def _bytes(tensor: Tensor) -> memoryview:
    assert tensor.dtype == torch.float32
    return _view(tensor.contiguous().view(-1).view(torch.uint8))


def read_layer(path: Place, account: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the tensors of a layer's file, or None where it is not what was written.

    Raises FileNotFoundError where it is not there.
    """
    with local_file(path) as local:
        content = _read(local, account["bytes"], account["sha256"])
    if content is None:
        return None
    begin = _LENGTH + int.from_bytes(content[:_LENGTH].numpy().tobytes(), "little")
    found = {}
    for name, entry in json.loads(content[_LENGTH:begin].numpy().tobytes()).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            tensor = content[begin + start : begin + end].view(torch.float32)
            found[name] = tensor.view(entry["shape"])
    return found


def _read(path: Path, size: int, checksum: str) -> Tensor | None:
    """Return the bytes of a file, (size,), or None where they are others."""
    if path.stat().st_size != size:
        return None
    content = torch.empty(size, dtype=torch.uint8)
    view = _view(content)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        at = 0
        while read := file.readinto(view[at : at + CHUNK]):
            digest.update(view[at : at + read])
            at += read
    return content if at == size and digest.hexdigest() == checksum else None
