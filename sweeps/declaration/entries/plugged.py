"""A sweep file read with what it says of a user's own code: files it lists, kinds they bring.

Where a sweep was submitted to a cluster its files lie elsewhere: what it lists came along as text,
in ``CARRIED`` beside the sweep file, and that counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.declaration.entries.sweep_spec import ObjectiveEntry, SweepSpec
from sweeps.declaration.sources import place_of
from sweeps.declaration.yaml_source import YamlSource
from sweeps.errors import UserError
from sweeps.plugins.bundle import Bundle, bundle_of
from sweeps.plugins.catalogue import Plugins
from sweeps.plugins.marks import PluginMistake
from sweeps.spec import OBJECTIVE_DEFAULTS, OBJECTIVES

CARRIED = "depthsweep-plugins.json"
# What any objective may say; the rest are options of depthsweep's own kinds.
_OF_ANY_KIND = set(ObjectiveEntry.model_fields) - {
    "options",
    *(name for options in OBJECTIVE_DEFAULTS.values() for name in options),
}


def read_spec(source: YamlSource) -> tuple[SweepSpec, Plugins]:
    """Return a sweep file, validated, and the code it lists, carried out.

    Raises UserError for the first thing wrong with either, at its file and line.
    """
    value = source.value()
    plugins = Plugins.of_bundles(bundles_of(source))
    if isinstance(value, dict):
        value = _with_options(value, plugins)
    return source.validate(SweepSpec, value=value, context=plugins), plugins


def bundles_of(source: YamlSource) -> list[Bundle]:
    """Return the files that a sweep file lists under ``plugins``, with what they import."""
    value = source.value()
    listed = value.get("plugins") if isinstance(value, dict) else None
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    carried = _carried(source.folder) if names else {}
    found: dict[str, Bundle] = {}
    for number, name in enumerate(names):
        where = source.where("plugins", number)
        if not name.endswith(".py"):
            raise UserError(
                f"{where}: plugins: {name}: give the path of a .py file; what is installed needs"
                " no line here"
            )
        try:
            bundle = carried.get(name) or bundle_of(place_of(name, source.folder))
        except PluginMistake:
            raise
        except UserError as error:
            raise UserError(f"{where}: plugins: {error}") from None
        if bundle.digest in found:
            raise UserError(f"{where}: plugins: {name}: is listed twice; remove one")
        found[bundle.digest] = bundle
    return list(found.values())


def carried_text(listed: Sequence[str], bundles: Sequence[Bundle]) -> str | None:
    """Return the text of bundles under the names that a sweep file lists them by; None of none."""
    named = dict(zip(listed, bundles, strict=True))
    return json.dumps({name: one.as_text() for name, one in named.items()}) if named else None


def _carried(folder: Path) -> dict[str, Bundle]:
    path = folder / CARRIED
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))
        return {name: Bundle.of_text(text) for name, text in texts.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); submit the sweep again") from None


def _with_options(value: dict[str, Any], plugins: Plugins) -> dict[str, Any]:
    """Return a document in which objectives of a user's own kind have their options apart."""
    objectives = value.get("objectives")
    if not isinstance(objectives, dict):
        return value
    found = {}
    for name, entry in objectives.items():
        kind = entry.get("kind", name) if isinstance(entry, dict) else None
        own = isinstance(kind, str) and kind not in OBJECTIVES and plugins.find("objective", kind)
        if own:
            known = {*_OF_ANY_KIND, "options"}
            rest = {key: one for key, one in entry.items() if key in known}
            beside = {key: one for key, one in entry.items() if key not in known}
            if beside and isinstance(apart := rest.get("options") or {}, dict):
                rest["options"] = {**apart, **beside}
            entry = rest
        found[name] = entry
    return {**value, "objectives": found}
