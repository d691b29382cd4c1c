"""The base of every specification, and the numbers they share."""

from __future__ import annotations

import hashlib
import json
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
        if name in self.first_defaults:
            return self.first_defaults[name]
        return type(self).model_fields[name].get_default(call_default_factory=True)


def _identity(part: Frozen) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        if name in part.not_in_identity:
            continue
        value = getattr(part, name)
        # The tag that tells one kind of a union from another is its default, and always written.
        tag = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
        if tag or value != part.left_out(name):
            found[name] = _plain(value, part, name)
    return found


def _plain(value: Any, part: Frozen, name: str) -> Any:
    if isinstance(value, Frozen):
        return _identity(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, part, name) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, part, name) for key, item in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(part).__name__}.{name}: {value!r} has no place in an identity")


def content_id(data: Any, length: int = 12) -> str:
    """Return the first hex digits of SHA-256 over canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
