"""What is said by a name, or by one name with its options: ``lion``, ``{lion: {betas: …}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def name_and_said(value: Any, what: str) -> tuple[str, Any]:
    """Return a name and what is said of it, None of a name alone.

    Raises ValueError, naming ``what`` it is (an optimizer), for anything else.
    """
    if isinstance(value, str):
        return value, None
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, said),) = value.items()
        return str(name), said
    raise ValueError(f"{what} is a name, or one name with its options")


def options_of(name: str, said: Any) -> dict[str, Any]:
    """Return what is said of a name as its options, lists of them as tuples; raise ValueError where
    it is no mapping."""
    if said is None:
        return {}
    if not isinstance(said, Mapping):
        raise ValueError(f"the options of {name} are a mapping, not {said!r}")
    return {key: tuple(one) if isinstance(one, list) else one for key, one in said.items()}
