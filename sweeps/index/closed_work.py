"""What an index says of one run or measurement that is closed, and how a line of it holds that.

A line has three JSON values with a tab between them: what every reader asks for, the attempts, and
the rest. A reader of 24,000 lines parses of each what it needs. Whatever lists and objects stand in
more than one entry (a model, an optimizer, the names of parts) stand once, ahead of all lines, and
are referred to by their number.
"""

from __future__ import annotations

import json
import marshal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import from_json

# The one key of an object that stands for a shared value.
REFERENCE = "="
HEAD = ("id", "seal", "status", "step", "loss", "mark")
REST = ("parts", "spec", "facts", "result", "dose", "evaluation")
_TAB = b"\t"


class ClosedWork:
    """One entry: what the closing record, run.json and the attempts of a run or measurement say.

    It counts for as long as that very closing record stands, which ``seal`` names. What is returned
    may be shared with other entries: it is read, not changed.
    """

    __slots__ = (
        "_attempts",
        "_rest",
        "_shared",
        "loss",
        "mark",
        "seal",
        "status",
        "step",
        "work_id",
    )

    def __init__(
        self, head: Sequence[Any], attempts: Any, rest: Any, shared: Sequence[Any] | None = None
    ) -> None:
        """``head`` has the values of HEAD. The others are plain data, or where ``shared`` is given
        JSON as a line has it, with references to that."""
        work_id, seal, status, step, loss, mark = head
        self.work_id: str = work_id
        # The checksum of the closing record.
        self.seal: str = seal
        self.status: Any = status
        self.step: int = step
        self.loss: float | None = loss
        # Of a file system: size and time of the closing record and time of the folder of attempts,
        # in ns, as they were; None where the store has no such times.
        self.mark: list[int] | None = mark
        self._attempts = attempts
        self._rest = rest
        self._shared = shared

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The attempts, as ``RunFolder.attempts`` returns them."""
        if isinstance(self._attempts, bytes):
            self._attempts = _resolved(from_json(self._attempts), self._shared)
        attempts: list[dict[str, Any]] = self._attempts
        return attempts

    @property
    def rest(self) -> dict[str, Any]:
        """``parts`` (the names of those that count), ``spec`` (None of a measurement) and ``facts``
        of run.json, the ``result`` of a measurement (None of a run), and what the closing record of
        a run says of its ``dose`` and ``evaluation``: missing where it says nothing, as one of
        before it did."""
        if isinstance(self._rest, bytes):
            self._rest = from_json(self._rest)
        return {name: _resolved(value, self._shared) for name, value in self._rest.items()}

    @property
    def parts(self) -> list[str]:
        """The parts that count, as the closing record names them."""
        parts: list[str] = self._one("parts")
        return parts

    @property
    def spec(self) -> dict[str, Any] | None:
        """The specification in run.json; None of a measurement."""
        spec: dict[str, Any] | None = self._one("spec")
        return spec

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self._one("facts")
        return facts

    @property
    def result(self) -> dict[str, Any] | None:
        """The result of a measurement; None of a run."""
        result: dict[str, Any] | None = self._one("result")
        return result

    @property
    def knows_dose(self) -> bool:
        """Whether the closing record of a run says what its dose was, or that it has none."""
        if isinstance(self._rest, bytes):
            self._rest = from_json(self._rest)
        return "dose" in self._rest

    @property
    def dose(self) -> dict[str, Any] | None:
        """``dose``, ``dose_slope`` and over how many ``blocks``; None where a run has none."""
        dose: dict[str, Any] | None = self._one("dose") if self.knows_dose else None
        return dose

    @property
    def evaluation(self) -> dict[str, dict[str, float]]:
        """Scores by name, ``first`` those before the first step and ``last`` those at the end;
        nothing where a run was not evaluated."""
        if isinstance(self._rest, bytes):
            self._rest = from_json(self._rest)
        found: dict[str, dict[str, float]] = {}
        return self._one("evaluation") if "evaluation" in self._rest else found

    def said(self) -> dict[str, Any]:
        """Return all that it says, to be compared."""
        return {**dict(zip(HEAD, self._head(), strict=True)), **self.rest}

    def supersedes(self, other: ClosedWork) -> bool:
        """Return whether this was read later than another entry of the same closing record."""
        return len(self.attempts) > len(other.attempts)

    def _head(self) -> list[Any]:
        return [self.work_id, self.seal, self.status, self.step, self.loss, self.mark]

    def _one(self, name: str) -> Any:
        if isinstance(self._rest, bytes):
            self._rest = from_json(self._rest)
        return _resolved(self._rest[name], self._shared)


def parsed(body: bytes) -> list[ClosedWork]:
    """Return the entries of a segment's lines; raise ValueError, TypeError or IndexError for what
    is none."""
    first, *lines = body.splitlines()
    shared: list[Any] = from_json(first)
    cells = [line.split(_TAB) for line in lines]
    heads = from_json(b"[" + b",".join(cell[0] for cell in cells) + b"]")
    return [
        ClosedWork(head, attempts, rest, shared)
        for head, (_, attempts, rest) in zip(heads, cells, strict=True)
    ]


def lines_of(entries: Sequence[ClosedWork]) -> Iterator[str]:
    """Yield the lines of a segment: what its entries share, then each of them.

    Only lists and objects that hold no other are shared: one reference leads to a value.
    """
    contents = [(entry.attempts, entry.rest) for entry in entries]
    keys = _Keys()
    counts = Counter(key for content in contents for key in keys.of_leaves(content))
    shared: list[Any] = []
    numbers: dict[bytes, int] = {}

    def pack(value: Any) -> Any:
        if not isinstance(value, dict | list):
            return value
        key = keys.of(value)
        if REFERENCE in value and len(value) == 1:  # would be taken for one
            shared.append(value)
            return {REFERENCE: len(shared) - 1}
        if key is None:
            if isinstance(value, dict):
                return {name: pack(each) for name, each in value.items()}
            return [pack(each) for each in value]
        if counts[key] == 1:
            return value
        if key not in numbers:
            numbers[key] = len(shared)
            shared.append(value)
        return {REFERENCE: numbers[key]}

    packed = [(pack(attempts), pack(rest)) for attempts, rest in contents]
    yield _text(shared)
    for entry, (attempts, rest) in zip(entries, packed, strict=True):
        yield "\t".join((_text(entry._head()), _text(attempts), _text(rest)))


class _Keys:
    """The content of lists and objects that hold no other, as a key; each is looked at once."""

    def __init__(self) -> None:
        self._known: dict[int, bytes | None] = {}

    def of(self, value: dict[str, Any] | list[Any]) -> bytes | None:
        """Return a key that is the same for the same content; None for what is empty or holds lists
        or objects. Values must live on."""
        if id(value) not in self._known:
            inner = value.values() if isinstance(value, dict) else value
            leaf = bool(value) and not any(isinstance(each, dict | list) for each in inner)
            # As a key only: it is never loaded.
            self._known[id(value)] = marshal.dumps(value, 2) if leaf else None
        return self._known[id(value)]

    def of_leaves(self, value: Iterable[Any]) -> Iterator[bytes]:
        for each in value.values() if isinstance(value, dict) else value:
            if isinstance(each, dict | list):
                key = self.of(each)
                if key is None:
                    yield from self.of_leaves(each)
                else:
                    yield key


def _resolved(value: Any, shared: Sequence[Any] | None) -> Any:
    if shared is None:
        return value
    if isinstance(value, dict):
        if REFERENCE in value and len(value) == 1:
            return shared[value[REFERENCE]]
        return {key: _resolved(each, shared) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolved(each, shared) for each in value]
    return value


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
