"""What a cell of a dataset has to be, by what it is for: named with its place where it is not."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.errors import UserError
from sweeps.spec import Cell

# What a message of a conversation may have beside these two is the chat template's own affair.
WHO, WHAT = "role", "content"
ANSWERS = "assistant"
# The largest number of 32 bits.
FLOAT32_MAX = (2 - 2**-23) * 2.0**127


@dataclass(frozen=True)
class Place:
    """A cell's place: that of its row, told when it is asked for, its column and role."""

    row: Callable[[], str]
    column: str
    role: str

    def wrong(self, cell: Any, expected: str) -> UserError:
        """Return what is said of a cell that is something else."""
        shown = repr(cell) if len(repr(cell)) <= 40 else f"{repr(cell)[:37]}..."
        found = "nothing (null)" if cell is None else f"{type(cell).__name__} {shown}"
        return UserError(
            f"{self.row()}: column {self.column!r} (the {self.role}) must be {expected}; found"
            f" {found}. Mend the row, or name another column with `columns: {{{self.role}: ...}}`"
        )


@dataclass(frozen=True)
class Labels:
    """The labels of a dataset: how many there are, and what their numbers stand for; both may be
    unknown.

    ``saved`` is what the numbers of one file stand for, where it says so itself; ``numbered`` is
    False where labels are known by name alone, so that a number without a name says nothing.
    """

    count: int | None = None
    names: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    numbered: bool = True

    @property
    def expected(self) -> str:
        if self.names:
            return f"one of {few(self.names)}"
        if self.count is None:
            return "a whole number from 0 on"
        return f"a whole number 0..{self.count - 1} (`labels` is how many there are)"

    def number(self, place: Place, cell: Any) -> int:
        """Return the number of a label: a whole one, as float, in digits, or by its name."""
        number: int | None = None
        if self.names and self.saved and not isinstance(cell, str):
            cell = self.saved[Labels(names=self.saved).number(place, cell)]
        if isinstance(cell, str):
            _stream(place, cell)
            if self.names:
                number = self.names.index(cell) if cell in self.names else None
            else:
                number = whole_number(cell)
        elif not self.numbered:
            number = None
        elif isinstance(cell, int) or (isinstance(cell, float) and cell.is_integer()):
            number = int(cell)
        count = self.count or len(self.names)
        if number is None or number < 0 or (count and number >= count):
            raise place.wrong(None if cell == "" else cell, self.expected)
        return number


def checked_cell(
    cell_kind: Cell,
    place: Place,
    cell: Any,
    labels: Labels = Labels(),
) -> Any:
    """Return a cell as an objective takes it; raise UserError with its place where it is no such.

    Texts stay ``str``, labels are their numbers, numbers ``float``; a conversation is a list of
    messages, each with who speaks and what is said.
    """
    if cell_kind == "label":
        return labels.number(place, cell)
    if cell_kind in ("labels", "tags"):
        return _labels(cell_kind, place, cell, labels)
    return _OTHERS[cell_kind](place, cell)


def whole_number(text: str) -> int | None:
    """Return the whole number from 0 on that a text is, as a table without types has it."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number >= 0 and number.is_integer() else None


def few(names: Sequence[Any]) -> str:
    """Return the first of some names, and whether there are more."""
    return ", ".join(map(str, names[:8])) + (" …" if names[8:] else "")


def texts_in(cell: Any) -> Iterable[str]:
    """Yield the texts of a checked cell: itself, its words as one, or what its messages say."""
    if isinstance(cell, str):
        yield cell
    elif isinstance(cell, list):
        words = [word for word in cell if isinstance(word, str)]
        if words:
            yield " ".join(words)
        yield from (message[WHAT] for message in cell if isinstance(message, dict))


# ------------------------------------------------------------------------------------------ texts
def _stream(place: Place, cell: Any) -> str:
    if not isinstance(cell, str):
        raise place.wrong(cell, "a text")
    if not cell.isascii():
        try:
            cell.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"{place.row()}: column {place.column!r} (the {place.role}) holds half of a"
                " surrogate pair, which is no character"
            ) from None
    return cell


def _is_empty(text: str) -> bool:
    """Return whether nothing of a text is seen: it is of spaces, controls and marks of format."""
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text)


def _text(place: Place, cell: Any) -> str:
    if not isinstance(cell, str) or _is_empty(cell):
        raise place.wrong(cell, "a text that is not empty" if isinstance(cell, str) else "a text")
    return _stream(place, cell)


def _words(place: Place, cell: Any) -> list[str]:
    if not isinstance(cell, list) or not cell:
        raise place.wrong(cell, "a list of words")
    for word in cell:  # a mark that is not seen is a word of some datasets
        if not isinstance(word, str) or not word.strip():
            raise place.wrong(word, "a word that is not empty" if word == "" else "a word")
        _stream(place, word)
    return cell


def _prompt(place: Place, cell: Any) -> Any:
    return _stream(place, cell) if isinstance(cell, str) else _conversation(place, cell)


def _dialogue(place: Place, cell: Any) -> Any:
    return _text(place, cell) if isinstance(cell, str) else _conversation(place, cell)


def _messages(place: Place, cell: Any) -> list[dict[str, Any]]:
    found = _conversation(place, cell)
    if not any(message[WHO] == ANSWERS and message[WHAT].strip() for message in found):
        raise place.wrong(cell, f"messages with an answer (role {ANSWERS!r})")
    return found


def _conversation(place: Place, cell: Any) -> list[dict[str, Any]]:
    if not isinstance(cell, list) or not cell:
        raise place.wrong(cell, "a text or a list of messages")
    for message in cell:
        whole = isinstance(message, Mapping) and isinstance(message.get(WHO), str)
        if not whole or not isinstance(message.get(WHAT), str):
            raise place.wrong(message, f"messages, each with {WHO!r} and {WHAT!r}, both texts")
        _stream(place, message[WHAT])
    # A table gives every message all fields that any has.
    return [{k: v for k, v in message.items() if v is not None} for message in cell]


# ---------------------------------------------------------------------------------------- numbers
def _number(place: Place, cell: Any) -> float:
    number = math.nan
    if isinstance(cell, (int, float, str)) and not isinstance(cell, bool):
        try:
            number = float(cell)
        except (ValueError, OverflowError):
            number = math.nan
    # It is trained on in float32.
    if math.isnan(number) or abs(number) > FLOAT32_MAX:
        raise place.wrong(None if cell == "" else cell, "a finite number (in float32)")
    return number


def _labels(cell_kind: Cell, place: Place, cell: Any, labels: Labels) -> list[int]:
    if not isinstance(cell, list):
        raise place.wrong(cell, "a list of labels")
    numbers = [labels.number(place, one) for one in cell]
    if cell_kind == "labels" and len(set(numbers)) < len(numbers):
        raise place.wrong(cell, "a list of the labels that apply, each once (no list of 0 and 1)")
    return numbers


_OTHERS: dict[Cell, Callable[[Place, Any], Any]] = {
    "stream": _stream,
    "text": _text,
    "words": _words,
    "prompt": _prompt,
    "dialogue": _dialogue,
    "messages": _messages,
    "number": _number,
}
