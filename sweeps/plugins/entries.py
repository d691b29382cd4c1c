"""What a sweep file says of a user's own kinds, checked against the code that it lists.

These are validators of ``sweeps.declaration.entries.sweep_spec``, whose context is the sweep's
``Plugins``.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, WithJsonSchema

from sweeps.errors import UserError
from sweeps.plugins.catalogue import Plugin, Plugins
from sweeps.plugins.naming import name_and_said, options_of
from sweeps.spec import (
    CONTROLS,
    METRICS,
    OBJECTIVES,
    OPTIMIZERS,
    SELECTIONS,
    Optimizer,
    Options,
    PluginControl,
    PluginMetric,
    PluginRule,
    PluginSelection,
)


def own_control(name: str, options: dict[str, Any], info: ValidationInfo) -> PluginControl:
    """Return a control of the user's own; raise ValueError where there is none, or its options are
    wrong."""
    plugin = _own(info, "control", name, CONTROLS)
    said = _options(plugin, options)
    try:
        plugin.mark.try_out(options=said)
    except UserError as error:
        raise ValueError(str(error)) from None
    return PluginControl(kind=name, options=said, code=plugin.code)


def own_selection(name: str, options: dict[str, Any], info: ValidationInfo) -> PluginSelection:
    """Return a selection of the user's own; raise ValueError where there is none, or its options
    are wrong. Its share is no option of its own."""
    plugin = _own(info, "selection", name, SELECTIONS)
    share = {key: options[key] for key in options if key == "share"}
    said = _options(plugin, {key: options[key] for key in options if key != "share"})
    try:
        plugin.mark.try_out(options=said)
    except UserError as error:
        raise ValueError(str(error)) from None
    return PluginSelection(kind=name, options=said, code=plugin.code, **share)


def own_rule(name: str, options: dict[str, Any], info: ValidationInfo) -> PluginRule:
    """Return an optimizer of the user's own; raise ValueError where there is none, or its options
    are wrong."""
    plugin = _own(info, "optimizer", name, OPTIMIZERS)
    try:
        return rule_of(plugin, plugin.mark.checked(options))
    except UserError as error:
        raise ValueError(str(error)) from None


def rule_of(plugin: Plugin, options: Options) -> PluginRule:
    """Return what a specification says of an optimizer of a plugin, with all of its options.

    Raises PluginMistake where it cannot be made with them, or keeps what cannot be kept.
    """
    mark = plugin.mark
    told = PluginRule(options=options, code=plugin.code, state_tensors=0)
    # No rule knows its learning rate: it is told one at each step.
    rule = mark.try_out(Optimizer(rule=mark.name, learning_rate=1.0, own=told), options=options)
    with mark.blamed("cannot be asked for its states"):
        wrong = rule.inconsistency()
        kept = 0 if wrong else rule.numbers_kept()
    if wrong:
        raise mark.mistake(wrong)
    whole = bool(rule.whole_matrices)
    return told.model_copy(update={"state_tensors": kept, "whole_matrices": whole})


def _metric(value: Any, info: ValidationInfo) -> PluginMetric:
    if isinstance(value, PluginMetric):
        return value
    name, said = name_and_said(value, "a metric")
    if name in METRICS:
        raise ValueError(f"{name} is always computed: leave it out")
    plugin = _own(info, "metric", name, ())
    options = _options(plugin, options_of(name, said))
    return PluginMetric(name=name, options=options, code=plugin.code)


def _objective_kind(kind: str | None, info: ValidationInfo) -> str | None:
    if kind is not None and kind not in OBJECTIVES:
        _own(info, "objective", kind, OBJECTIVES)
    return kind


def _own(info: ValidationInfo, kind: str, name: str, known: tuple[str, ...]) -> Plugin:
    plugins = info.context if isinstance(info.context, Plugins) else Plugins()
    try:
        return plugins.require(kind, name, known)
    except UserError as error:
        raise ValueError(str(error)) from None


def _options(plugin: Plugin, said: dict[str, Any]) -> Options:
    try:
        return plugin.mark.checked(said)
    except UserError as error:
        raise ValueError(str(error)) from None


OwnMetric = Annotated[
    PluginMetric,
    BeforeValidator(_metric),
    WithJsonSchema({"oneOf": [{"type": "string"}, {"type": "object", "maxProperties": 1}]}),
]
ObjectiveName = Annotated[str | None, AfterValidator(_objective_kind)]
