"""From the selection a specification names to its rule."""

from __future__ import annotations

from sweeps import spec
from sweeps.plugins.opened import opened
from workers.selection.high import High
from workers.selection.length_matched import LengthMatched
from workers.selection.low import Low
from workers.selection.moderate import Moderate
from workers.selection.random_share import RandomShare
from workers.selection.selection_rule import SelectionRule


def build_selection(selection: spec.Selection) -> SelectionRule | None:
    """Return the rule a run's specification names, None where it selects nothing; a user's own has
    been opened."""
    if isinstance(selection, spec.PluginSelection):
        own = opened(selection.code, "selection", selection.kind)
        built: SelectionRule = own.build(options=selection.options)
        built.plugin_place = f"{own.where}: selection {own.name!r}"
        return built
    if isinstance(selection, spec.High):
        return High(selection.loss_within)
    if isinstance(selection, spec.Low):
        return Low(selection.loss_within)
    if isinstance(selection, spec.Moderate):
        return Moderate(selection.loss_within)
    if isinstance(selection, spec.LengthMatched):
        return LengthMatched(selection.loss_within)
    return RandomShare() if isinstance(selection, spec.Random) else None
