"""A sweep with some settings other than its file's, for a trial: ``run FILE --set steps=10``.

It computes other runs, so it is another sweep and has a name that says so: the sweep of the file
keeps its own, and its version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field, ValidationError, create_model

from sweeps.declaration.entries.sweep_spec import Block, ProbeEntry, Settings, SweepSpec
from sweeps.declaration.yaml_source import YamlSource, explain
from sweeps.errors import UserError, closest
from sweeps.plugins.catalogue import Plugins
from sweeps.spec import Frozen

LONGEST_NAME = 80
# Settings of the probe by their names here; its data is no matter of one word.
PROBE = {f"probe.{name}": name for name in ProbeEntry.model_fields if name != "data"}


def read_settings(said: Sequence[str], plugins: Plugins) -> dict[str, Any]:
    """Return settings given as ``name=value``, values as YAML has them, in the order of names.

    ``plugins`` are those of the sweep, whose kinds may be named. Raises UserError for one that is
    no setting of a run, or has no such value.
    """
    found: dict[str, Any] = {}
    for one in said:
        name, _, text = one.partition("=")
        if not text.strip() or not name:
            raise UserError(f"--set {one}: write name=value, as in steps=10")
        if name not in (known := [*Settings.model_fields, *PROBE]):
            hint = closest(name, known)
            raise UserError(f"--set {name}: no setting of a run; {hint}")
        if name in found:
            raise UserError(f"--set {name}: given twice")
        try:
            found[name] = YamlSource.parse(text, f"--set {name}", "a setting").value()
            _validated(name, found[name], plugins)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise UserError(f"--set {one}: {explain(first, _alone(name), name)}") from None
    return dict(sorted(found.items()))


def _validated(name: str, value: Any, plugins: Plugins) -> Any:
    """Return a setting as a sweep file's has it; raise ValidationError for another value."""
    text = json.dumps({name: value}, default=str)
    made = _alone(name).model_validate_json(text, context=plugins)
    return getattr(made, PROBE.get(name, name))


def _alone(name: str) -> type[BaseModel]:
    """Return what validates one setting."""
    if name not in PROBE:
        return Settings
    field = ProbeEntry.model_fields[PROBE[name]]
    fields: dict[str, Any] = {PROBE[name]: (field.annotation, Field(alias=name))}
    return create_model("ProbeSetting", __base__=Frozen, **fields)


def with_settings(spec: SweepSpec, changed: Mapping[str, Any], plugins: Plugins) -> SweepSpec:
    """Return a sweep in which each run has the settings of ``changed``, as ``read_settings``
    returned them, under a name of its own.

    With fewer steps than lie between the file's probes there is the last probe alone, which a trial
    is for; a file that says so itself is refused.

    Raises UserError for a setting that a block varies: which of its values is meant is a choice of
    runs, not another value.
    """
    made = {name: _validated(name, value, plugins) for name, value in changed.items()}
    probe = {PROBE[name]: value for name, value in made.items() if name in PROBE}
    fewer = made.get("steps")
    if isinstance(fewer, int) and (spec.probe.every or 0) > fewer:
        probe = {"every": None, **probe}
    of_runs = {name: value for name, value in made.items() if name not in PROBE}
    values = Settings.model_construct(**of_runs)
    blocks = [_block(block, values, of_runs) for block in spec.blocks]
    said = ", ".join(f"{name}={_text(value)}" for name, value in changed.items())
    words = "-".join(f"{name}-{_text(value)}" for name, value in changed.items())
    name = f"{spec.name}-{re.sub('[^A-Za-z0-9._]+', '-', words).strip('-')}"[:LONGEST_NAME]
    description = f"{spec.description} With {said}.".strip()
    update = {
        "name": name,
        "description": description,
        "defaults": _with(spec.defaults, values, of_runs),
        "probe": spec.probe.model_copy(update=probe),
        "blocks": blocks,
    }
    return spec.model_copy(update=update)


def _block(block: Block, values: Settings, changed: Mapping[str, Any]) -> Block:
    grid = dict(block.grid)
    for name in changed:
        several = grid.get(name)
        if several is not None and len(several) > 1:
            raise UserError(
                f"--set {name}: block {block.name!r} varies it; choose among its runs with"
                f" --only {name}=…"
            )
        if several is not None:
            grid[name] = [getattr(values, name)]
    given = {name: value for name, value in grid.items() if value is not None}
    return block.model_copy(
        update={
            "grid": type(block.grid).model_construct(**given),
            "set": _with(block.set, values, changed, added=False),
            "include": [_with(one, values, changed, added=False) for one in block.include],
        }
    )


def _with(
    settings: Settings, values: Settings, changed: Mapping[str, Any], *, added: bool = True
) -> Settings:
    """Return settings with other values; only those that are said there unless ``added``."""
    names = [name for name in changed if added or name in settings.model_fields_set]
    return settings.model_copy(update={name: getattr(values, name) for name in names})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
