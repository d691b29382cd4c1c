"""The base of every specification, and the numbers they share."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=1)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="A full commit hash.")]


class Frozen(BaseModel):
    """Immutable, refusing unknown keys and silent conversions (the text "3" is not a number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # Names and places: what is called or lies otherwise gives the same result.
    not_in_identity: ClassVar[frozenset[str]] = frozenset()
    # A field at its default is left out of the identity, so a field that is added later renames no
    # old run. The price: when a default changes, the one that the field was born with has to be
    # kept here, for ever. Runs at the old value then keep their ids, and the new one is written
    # out. Without it, two runs that compute different things would have one id.
    first_defaults: ClassVar[dict[str, Any]] = {}

    def identity(self) -> dict[str, Any]:
        """Return what decides a result, as plain JSON data: every field that is not at the default
        it was born with, by rule, so that no setting can be forgotten."""
        return _identity(self)

    def left_out(self, name: str) -> Any:
        """Return the value of a field at which the identity leaves it out."""
        return _born_with(type(self))[name]


# A field that is always written: no value equals it.
_ALWAYS = object()


@cache
def _born_with(kind: type[Frozen]) -> dict[str, Any]:
    """Return the fields of the identity by name, with the value at which each is left out."""
    found: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if name in kind.not_in_identity:
            continue
        # The tag that tells one kind of a union from another is its default, and always written.
        tag = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
        if tag or field.is_required():
            found[name] = _ALWAYS
        else:
            default = field.get_default(call_default_factory=True)
            found[name] = kind.first_defaults.get(name, default)
    return found


def _identity(part: Frozen) -> dict[str, Any]:
    kind = type(part)
    born = _born_with(kind)
    of_its_own = kind.left_out is not Frozen.left_out
    found: dict[str, Any] = {}
    for name, default in born.items():
        value = getattr(part, name)
        if value != (part.left_out(name) if of_its_own else default):
            found[name] = _plain(value, part, name)
    return found


def _plain(value: Any, part: Frozen, name: str) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Frozen):
        return _identity(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, part, name) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, part, name) for key, item in value.items()}
    raise TypeError(f"{type(part).__name__}.{name}: {value!r} has no place in an identity")


def number_text(value: float) -> str:
    """Return a number as it was written, in as few digits as tell it from every other."""
    return repr(float(value)).removesuffix(".0")


def content_id(data: Any, length: int = 12) -> str:
    """Return the first hex digits of SHA-256 over canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
