"""How a sweep file says what is trained, what a step is and what ends it: a name, or one name with
its options."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, WithJsonSchema

from sweeps.errors import closest
from sweeps.plugins.entries import own_control, own_rule, own_selection
from sweeps.plugins.naming import name_and_said, options_of
from sweeps.spec.frozen import Frozen
from sweeps.spec.training.adapter import ADAPTERS, Adapter, Lora, NoAdapter
from sweeps.spec.training.control import CONTROL_KINDS, CONTROLS, Control, PluginControl
from sweeps.spec.training.evaluation import NoImprovement, Stop
from sweeps.spec.training.optimizer import OPTIMIZERS, RULES, Optimizer, PluginRule
from sweeps.spec.training.selection import (
    SELECTION_KINDS,
    SELECTIONS,
    PluginSelection,
    Selection,
)


# ---------------------------------------------------------------------------------------- control
def _control(value: Any, info: ValidationInfo) -> Any:
    """Accept ``standard``, ``equal_step`` or a mapping of one control name to its options; those of
    ``layer_rates`` may be the rates themselves. Another name is of a control of the user's own."""
    if isinstance(value, (*CONTROL_KINDS.values(), PluginControl)):
        return value
    name, said = name_and_said(value, "a control")
    if name not in CONTROLS:
        return own_control(name, options_of(name, said), info)
    if name == "layer_rates" and isinstance(said, list | str):
        said = {"rates": said}
    return {"kind": name, **options_of(name, said)}


def _options_schema(kind: type[Frozen]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    properties = {key: one for key, one in schema["properties"].items() if key != "kind"}
    found = {"type": "object", "additionalProperties": False, "properties": properties}
    if schema.get("required"):
        found["required"] = schema["required"]
    return found


def _mapping_schema(name: str, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [name],
        "additionalProperties": False,
        "properties": {name: options},
    }


def _control_schema() -> dict[str, Any]:
    alone, named = [], []
    for name, kind in CONTROL_KINDS.items():
        options = _options_schema(kind)
        if name == "layer_rates":
            options = {"oneOf": [options, {"enum": ["rgn"]}, {"type": "array"}]}
        elif "required" not in options:
            alone.append(name)
        if name != "standard":
            named.append(_mapping_schema(name, options))
    return {"oneOf": [{"enum": alone}, *named, *_plugin_schemas(CONTROLS)]}


def _plugin_schemas(known: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return what may stand for something of a plugin, which no schema knows: any other name."""
    other = {"not": {"enum": list(known)}}
    return [
        {"type": "string", **other},
        {"type": "object", "minProperties": 1, "maxProperties": 1, "propertyNames": other},
    ]


ControlEntry = Annotated[Control, BeforeValidator(_control), WithJsonSchema(_control_schema())]


# -------------------------------------------------------------------------------------- optimizer
class OptimizerChoice(Frozen):
    """A rule and those of its options that are said."""

    rule: str
    options: dict[str, Any] = Field(default_factory=dict)
    own: PluginRule | None = None


def _optimizer(value: Any, info: ValidationInfo) -> Any:
    """Accept ``lion``, or a mapping of one rule to its options. Another name is of a rule of the
    user's own."""
    if isinstance(value, OptimizerChoice):
        return value
    name, said = name_and_said(value, "an optimizer")
    options = options_of(name, said)
    if name not in OPTIMIZERS:
        return {"rule": name, "own": own_rule(name, options, info)}
    for key in options:
        valid = list(RULES[name].options)
        if key not in valid:
            hint = closest(str(key), valid) if valid else "it has none"
            raise ValueError(f"unknown option {key!r} of {name}; {hint}")
    # What the options may be, the specification knows.
    try:
        Optimizer.model_validate({"rule": name, "learning_rate": 1.0, **options})
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in wrong["loc"][:1]) or name
        reason = wrong["msg"].removeprefix("Value error, ")
        raise ValueError(f"{key}: {reason[0].lower()}{reason[1:]}") from None
    return {"rule": name, "options": options}


def _optimizer_schema() -> dict[str, Any]:
    fields = Optimizer.model_json_schema()["properties"]
    named = [
        _mapping_schema(
            name,
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {option: fields[option] for option in rule.options},
            },
        )
        for name, rule in RULES.items()
        if rule.options
    ]
    return {"oneOf": [{"enum": list(OPTIMIZERS)}, *named, *_plugin_schemas(OPTIMIZERS)]}


OptimizerEntry = Annotated[
    OptimizerChoice, BeforeValidator(_optimizer), WithJsonSchema(_optimizer_schema())
]


# -------------------------------------------------------------------------------------- selection
def _selection(value: Any, info: ValidationInfo) -> Any:
    """Accept ``high``, or a mapping of one selection to its options. Another name is of a selection
    of the user's own."""
    if isinstance(value, (*SELECTION_KINDS.values(), PluginSelection)):
        return value
    name, said = name_and_said(value, "a selection")
    if name not in SELECTIONS:
        return own_selection(name, options_of(name, said), info)
    return {"kind": name, **options_of(name, said)}


def _selection_schema() -> dict[str, Any]:
    named = [
        _mapping_schema(name, _options_schema(kind))
        for name, kind in SELECTION_KINDS.items()
        if name != "all"
    ]
    return {"oneOf": [{"enum": list(SELECTIONS)}, *named, *_plugin_schemas(SELECTIONS)]}


SelectionEntry = Annotated[
    Selection, BeforeValidator(_selection), WithJsonSchema(_selection_schema())
]


# -------------------------------------------------------------------------------- stop and adapter
def _stop(value: Any) -> Any:
    """Accept ``diverged``, which is what ends every run, or ``no_improvement`` with its options."""
    if isinstance(value, NoImprovement):
        return value
    name, said = name_and_said(value, "stop")
    if name == "diverged" and said is None:
        return None
    if name != "no_improvement":
        raise ValueError(f"{name!r} ends no run: diverged, or no_improvement: {{over: 3}}")
    return {"kind": name, **options_of(name, said)}


def _stop_schema() -> dict[str, Any]:
    options = _mapping_schema("no_improvement", _options_schema(NoImprovement))
    return {"oneOf": [{"enum": ["diverged", "no_improvement"]}, options]}


StopEntry = Annotated[Stop | None, BeforeValidator(_stop), WithJsonSchema(_stop_schema())]


def _adapter(value: Any) -> Any:
    """Accept ``none``, ``lora`` or a mapping of one adapter's name to its options."""
    if isinstance(value, (NoAdapter, Lora)):
        return value
    name, said = name_and_said(value, "an adapter")
    if name not in ADAPTERS:
        raise ValueError(f"unknown adapter {name!r}; {closest(name, ADAPTERS)}")
    return {"kind": name, **options_of(name, said)}


def _adapter_schema() -> dict[str, Any]:
    lora = _mapping_schema("lora", _options_schema(Lora))
    return {"oneOf": [{"enum": list(ADAPTERS)}, lora]}


AdapterEntry = Annotated[Adapter, BeforeValidator(_adapter), WithJsonSchema(_adapter_schema())]
