"""Blocks of a model as settings name them: ``blocks 3``, ``blocks 1-6``, ``encoder blocks 1-6``."""

from __future__ import annotations

import re
from typing import NamedTuple

_RANGE = re.compile(r"(?:(?P<stack>\w+) )?blocks (?P<first>\d{1,6})(?:-(?P<last>\d{1,6}))?")


class BlockRange(NamedTuple):
    """Blocks ``first`` to ``last``, counted from 1, of a stack; None where a model has one."""

    stack: str | None
    first: int
    last: int


def block_range(entry: str) -> BlockRange | None:
    """Return the blocks that an entry names; None where it reads like no range of them."""
    found = _RANGE.fullmatch(entry)
    if found is None:
        return None
    return BlockRange(found["stack"], int(found["first"]), int(found["last"] or found["first"]))


def is_block_range(entry: str) -> bool:
    """Return whether an entry reads like a range of blocks; raise ValueError where it does, and its
    numbers are none of blocks."""
    found = block_range(entry)
    if found is not None and not 1 <= found.first <= found.last:
        raise ValueError(f"{entry!r}: blocks are counted from 1, the lower number first")
    return found is not None


def in_order(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return entries so that saying them in another order makes no other run."""
    return tuple(sorted(set(entries)))
