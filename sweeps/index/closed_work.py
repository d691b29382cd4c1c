"""What an index says of one run or measurement that is closed, and how a segment holds thousands.

In a segment, whatever lists and objects stand in more than one entry (a model, an optimizer, the
names of parts) stand once, ahead of the entries, and are referred to by their number.
"""

from __future__ import annotations

import marshal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

# The one key of an object that stands for a shared value.
REFERENCE = "="


class ClosedWork:
    """One entry: what the closing record, run.json and the attempts of a run or measurement say.

    It counts for as long as that very closing record stands, which ``seal`` names. What is returned
    is shared with other entries: it is read, not changed.
    """

    __slots__ = ("_data", "_shared")

    def __init__(self, data: dict[str, Any], shared: Sequence[Any] = ()) -> None:
        self._data = data
        self._shared = shared

    @property
    def work_id(self) -> str:
        return str(self._data["id"])

    @property
    def seal(self) -> str:
        """The checksum of the closing record."""
        return str(self._data["seal"])

    @property
    def status(self) -> Any:
        """finished, diverged or failed."""
        return self._data["status"]

    @property
    def step(self) -> int:
        return int(self._data["step"])

    @property
    def loss(self) -> float | None:
        loss: float | None = self._data["loss"]
        return loss

    @property
    def mark(self) -> list[int] | None:
        """Of a file system: size and time of the closing record and time of the folder of attempts,
        in ns, as they were; None where the store has no such times."""
        return None if self._data["mark"] is None else list(self._value("mark"))

    @property
    def parts(self) -> list[str]:
        """The parts that count, as the closing record names them."""
        return list(self._value("parts"))

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The attempts, as ``RunFolder.attempts`` returns them."""
        return list(self._value("attempts"))

    @property
    def spec(self) -> dict[str, Any] | None:
        """The specification in run.json; None of a measurement."""
        spec: dict[str, Any] | None = self._value("spec")
        return spec

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self._value("facts")
        return facts

    @property
    def result(self) -> dict[str, Any] | None:
        """The result of a measurement; None of a run."""
        result: dict[str, Any] | None = self._value("result")
        return result

    def data(self) -> dict[str, Any]:
        """Return all of it as plain data, nothing shared."""
        return {name: self._value(name) for name in self._data}

    def supersedes(self, other: ClosedWork) -> bool:
        """Return whether this was read later than another entry of the same closing record."""
        return len(self._value("attempts")) > len(other._value("attempts"))

    def _value(self, name: str) -> Any:
        return _resolved(self._data.get(name), self._shared)


def _resolved(value: Any, shared: Sequence[Any]) -> Any:
    if isinstance(value, dict):
        if REFERENCE in value and len(value) == 1:
            return shared[value[REFERENCE]]
        return {key: _resolved(each, shared) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolved(each, shared) for each in value]
    return value


def packed(entries: Iterable[dict[str, Any]]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return the values that several entries share, and the entries with references to them.

    Only lists and objects that hold no other are shared: one reference leads to a value.
    """
    entries = list(entries)
    counts = Counter(_key(leaf) for entry in entries for leaf in _leaves(entry))
    shared: list[Any] = []
    numbers: dict[bytes, int] = {}

    def pack(value: Any, *, top: bool = False) -> Any:
        if not isinstance(value, dict | list):
            return value
        if not top and _is_leaf(value) and counts[_key(value)] > 1:
            key = _key(value)
            if key not in numbers:
                numbers[key] = len(shared)
                shared.append(value)
            return {REFERENCE: numbers[key]}
        if isinstance(value, dict):
            return {name: pack(each) for name, each in value.items()}
        return [pack(each) for each in value]

    return shared, [pack(entry, top=True) for entry in entries]


def _leaves(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, dict) else value
    for each in inner:
        if isinstance(each, dict | list):
            if _is_leaf(each):
                yield each
            else:
                yield from _leaves(each)


def _is_leaf(value: dict[str, Any] | list[Any]) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return len(value) > 0 and not any(isinstance(each, dict | list) for each in inner)


def _key(leaf: Any) -> bytes:
    return marshal.dumps(leaf, 2)  # as a key only: it is never loaded
