"""The weights that a model was loaded with, read again when they are asked for.

Keeping a float32 copy of all would take as much memory as the model. A safetensors file is mapped,
so one tensor of it is read, compared and let go. Which tensor of the folder a parameter came from
is found by its name or, where transformers renames it in loading, by its shape and content; a
parameter of which the folder has no such tensor (a new head, experts that loading puts together,
pickled weights) is kept, in the machine's memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn


@dataclass(frozen=True)
class _Stored:
    """One tensor of a folder's files."""

    file: Path
    key: str

    def read(self) -> Tensor:
        with safe_open(self.file, framework="pt") as opened:
            found: Tensor = opened.get_tensor(self.key)
        return found.float()


class FirstWeights:
    """By the names of a module's parameters, what they were when this was made."""

    def __init__(self, folder: Path, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """``named`` are the parameters that will be asked for, as they were loaded."""
        self._stored: dict[str, _Stored] = {}
        self._kept: dict[str, Tensor] = {}
        index = _Index(folder)
        for name, parameter in named:
            found = index.of(name, parameter.detach())
            if found is not None:
                self._stored[name] = found
            else:
                self._kept[name] = parameter.detach().to("cpu", torch.float32, copy=True)

    @property
    def kept(self) -> list[str]:
        """The names of what is held in memory."""
        return sorted(self._kept)

    def read(self, name: str) -> Tensor:
        """Return the first value of a parameter, float32 on the CPU."""
        return self._kept[name] if name in self._kept else self._stored[name].read()

    def key_of(self, name: str) -> str | None:
        """Return what the folder's files call a parameter; None of one that is held in memory."""
        return self._stored[name].key if name in self._stored else None


class OtherWeights:
    """The weights of another checkpoint of the same architecture, by what its files call them."""

    def __init__(self, folder: Path) -> None:
        self._stored: dict[str, _Stored] = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                self._stored |= {key: _Stored(file, key) for key in opened.keys()}  # noqa: SIM118

    def read(self, key: str | None, like: Tensor) -> Tensor | None:
        """Return a tensor, float32 on the CPU; None where there is none of that shape."""
        if key is None or key not in self._stored:
            return None
        found = self._stored[key].read()
        return found if found.shape == like.shape else None


class _Index:
    """The tensors of a folder by name, and by shape."""

    def __init__(self, folder: Path) -> None:
        self._shapes: dict[_Stored, tuple[int, ...]] = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118  # it is no mapping
                    shape = opened.get_slice(key).get_shape()
                    self._shapes[_Stored(file, key)] = tuple(shape)

    def of(self, name: str, value: Tensor) -> _Stored | None:
        """Return the tensor that ``value`` was read from; None where there is none."""
        alike = [one for one, shape in self._shapes.items() if shape == tuple(value.shape)]
        # The longest common end first: it is mostly the one, so mostly one tensor is read.
        alike.sort(key=lambda one: -_common_end(name, one.key))
        host = value.to("cpu", torch.float32)
        return next((one for one in alike if torch.equal(one.read(), host)), None)


def _common_end(one: str, other: str) -> int:
    """Return how many parts of two dotted names are the same, from their ends."""
    count = 0
    for a, b in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if a != b:
            break
        count += 1
    return count
