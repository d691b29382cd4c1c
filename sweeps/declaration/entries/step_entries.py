"""How a sweep file says what is trained, what a step is and what ends it: a name, or one name with
its options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, WithJsonSchema

from sweeps.errors import closest
from sweeps.plugins.entries import own_control, own_rule
from sweeps.spec.frozen import Frozen
from sweeps.spec.training.adapter import ADAPTERS, Adapter, Lora, NoAdapter
from sweeps.spec.training.control import CONTROL_KINDS, CONTROLS, Control, PluginControl
from sweeps.spec.training.evaluation import NoImprovement, Stop
from sweeps.spec.training.optimizer import OPTIMIZERS, RULES, Optimizer, PluginRule


def _said(value: Any, what: str) -> tuple[str, Any]:
    """Return a name and what is said of it, of a name alone or a mapping of one name."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, options),) = value.items()
        return str(name), options
    raise ValueError(f"{what} is a name, or one name with its options")


def _named(value: Any, what: str, names: Iterable[str]) -> tuple[str, Any]:
    """Return the same, of a name that has to be among some."""
    names = tuple(names)
    name, options = _said(value, what)
    if name not in names:
        raise ValueError(f"unknown {what.split()[-1]} {name!r}; {closest(str(name), names)}")
    return name, options


def _mapping(name: str, options: Any) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ValueError(f"the options of {name} are a mapping, not {options!r}")
    return dict(options)


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(one) if isinstance(one, list) else one for key, one in options.items()}


# ---------------------------------------------------------------------------------------- control
def _control(value: Any, info: ValidationInfo) -> Any:
    """Accept ``standard``, ``equal_step`` or a mapping of one control name to its options; those of
    ``layer_rates`` may be the rates themselves. Another name is of a control of the user's own."""
    if isinstance(value, (*CONTROL_KINDS.values(), PluginControl)):
        return value
    name, options = _said(value, "a control")
    if name not in CONTROLS:
        return own_control(name, _mapping(name, options), info)
    if name == "layer_rates" and isinstance(options, list | str):
        options = {"rates": options}
    return {"kind": name, **_tuples(_mapping(name, options))}


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
    name, options = _said(value, "an optimizer")
    if name not in OPTIMIZERS:
        return {"rule": name, "own": own_rule(name, _mapping(name, options), info)}
    said = _tuples(_mapping(name, options))
    for key in said:
        valid = list(RULES[name].options)
        if key not in valid:
            hint = closest(str(key), valid) if valid else "it has none"
            raise ValueError(f"unknown option {key!r} of {name}; {hint}")
    # What the options may be, the specification knows.
    try:
        Optimizer.model_validate({"rule": name, "learning_rate": 1.0, **said})
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in wrong["loc"][:1]) or name
        reason = wrong["msg"].removeprefix("Value error, ")
        raise ValueError(f"{key}: {reason[0].lower()}{reason[1:]}") from None
    return {"rule": name, "options": said}


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


# -------------------------------------------------------------------------------- stop and adapter
def _stop(value: Any) -> Any:
    """Accept ``diverged``, which is what ends every run, or ``no_improvement`` with its options."""
    if isinstance(value, NoImprovement):
        return value
    if value == "diverged":
        return None
    if value == "no_improvement":
        return {"kind": value}
    if not isinstance(value, dict) or list(value) != ["no_improvement"]:
        raise ValueError(f"{value!r} ends no run: diverged, or no_improvement: {{over: 3}}")
    options = value["no_improvement"] or {}
    if not isinstance(options, dict):
        raise ValueError(f"the options of no_improvement are a mapping, not {options!r}")
    return {"kind": "no_improvement", **options}


StopEntry = Annotated[
    Stop | None,
    BeforeValidator(_stop),
    WithJsonSchema(
        {
            "oneOf": [
                {"enum": ["diverged", "no_improvement"]},
                {
                    "type": "object",
                    "required": ["no_improvement"],
                    "additionalProperties": False,
                    "properties": {
                        "no_improvement": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {"over": {"type": "integer", "minimum": 1}},
                        }
                    },
                },
            ]
        }
    ),
]


def _adapter(value: Any) -> Any:
    """Accept ``none``, ``lora`` or a mapping of one adapter's name to its options."""
    if isinstance(value, (NoAdapter, Lora)):
        return value
    named = isinstance(value, dict) and len(value) == 1
    ((name, options),) = value.items() if named else ((value, {}),)
    if not isinstance(name, str) or name not in ADAPTERS:
        raise ValueError(f"no adapter {name!r}; {closest(str(name), ADAPTERS)}")
    if not isinstance(options, dict | None):
        raise ValueError(f"the options of {name} are a mapping, not {options!r}")
    lists = {key: tuple(value) for key, value in (options or {}).items() if isinstance(value, list)}
    return {"kind": name, **(options or {}), **lists}


def _adapter_schema() -> dict[str, Any]:
    lora = Lora.model_json_schema()
    lora["properties"].pop("kind")
    named = {"type": "object", "required": ["lora"], "additionalProperties": False}
    return {"oneOf": [{"enum": list(ADAPTERS)}, {**named, "properties": {"lora": lora}}]}


AdapterEntry = Annotated[Adapter, BeforeValidator(_adapter), WithJsonSchema(_adapter_schema())]
