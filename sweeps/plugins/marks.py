"""The marks by which a file says what is meant for depthsweep, and the options each takes."""

from __future__ import annotations

import inspect
import json
import re
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from sweeps.errors import UserError, closest
from sweeps.spec import Options

Target = TypeVar("Target")
ATTRIBUTE = "__depthsweep_mark__"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class PluginMistake(UserError):
    """What is wrong with a user's own code, at its file and line."""


@dataclass(frozen=True)
class Mark:
    """One thing that a file brings.

    Attributes:
        kind: what it is: a name of ``kinds.KINDS``.
        name: what sweep files call it.
        target: the class or function itself.
        file, line: where it is marked.
        details: what its decorator was told beside the name.
    """

    kind: str
    name: str
    target: Any
    file: str
    line: int
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def mistake(self, text: str) -> PluginMistake:
        return PluginMistake(f"{self.where}: {self.kind} {self.name!r} {text}")

    @cached_property
    def options(self) -> type[BaseModel]:
        """The options it takes: its keyword-only parameters.

        Raises PluginMistake for one without a type, or of a type that a sweep file cannot say.
        """
        fields: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                raise self.mistake(f"takes any option (**{name}): name those that it takes")
            if parameter.kind is parameter.KEYWORD_ONLY:
                annotation = self._types.get(name)
                if annotation is None:
                    raise self.mistake(f"has an option without a type: write `{name}: float`")
                default = ... if parameter.default is parameter.empty else parameter.default
                fields[name] = (annotation, default)
                self._require_default(name, fields[name])
        try:
            return create_model(f"Options_{self.name}", __base__=_Options, **fields)
        except Exception as error:
            raise self.mistake(f"has options of no use here: {on_one_line(error)}") from None

    def _require_default(self, name: str, field: tuple[Any, Any]) -> None:
        if field[1] is ...:
            return
        alone: Any = {name: field}
        try:
            create_model("Option", __base__=_Options, **alone)()
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            raise self.mistake(
                f"has a default of {name} that is not of its type: {said[0].lower()}{said[1:]}"
            ) from None
        except Exception as error:
            raise self.mistake(
                f"has option {name} of a type that is of no use here: {on_one_line(error)}"
            ) from None

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters it is called with."""
        try:
            return inspect.signature(self.target).parameters
        except (TypeError, ValueError) as error:
            raise self.mistake(
                f"cannot be asked for its parameters: {on_one_line(error)}"
            ) from None

    @cached_property
    def _types(self) -> dict[str, Any]:
        """The types of the options alone: others may be known to type checkers only."""
        target: Any = self.target
        made_by = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
        said = {
            name: one.annotation
            for name, one in self.parameters.items()
            if one.kind is one.KEYWORD_ONLY and one.annotation is not one.empty
        }
        holder = type("Types", (), {"__annotations__": said})
        names = getattr(inspect.unwrap(made_by), "__globals__", {})
        try:
            return typing.get_type_hints(holder, globalns=names, include_extras=True)
        except Exception as error:
            raise self.mistake(
                f"has an option whose type is not known: {on_one_line(error)}"
            ) from None

    def checked(self, said: Mapping[str, Any]) -> Options:
        """Return all of its options, where ``said`` has some; raise UserError for an unknown one,
        one that is missing, or another type."""
        made = self.model(said).model_dump(mode="json")
        return {name: _frozen(self, name, value) for name, value in made.items()}

    def model(self, said: Mapping[str, Any]) -> BaseModel:
        """Return options as their types have them; raise UserError as ``checked`` does."""
        known = list(self.options.model_fields)
        for name in said:
            if name not in known:
                hint = closest(str(name), known) if known else "it takes none"
                raise UserError(f"{self.kind} {self.name}: unknown option {name!r}; {hint}")
        try:
            return self.options.model_validate_json(json.dumps(dict(said)))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            if first["type"] == "missing":
                raise UserError(f"{self.kind} {self.name}: option {name} is required") from None
            message = first["msg"].removeprefix("Value error, ")
            raise UserError(
                f"{self.kind} {self.name}: option {name}: {message[0].lower()}{message[1:]}; found"
                f" {first['input']!r}"
            ) from None
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.kind} {self.name}: options: {on_one_line(error)}") from None

    def build(self, *given: Any, options: Mapping[str, Any]) -> Any:
        """Call it: what it is given by its kind, and its options as their types have them."""
        values = self.model(options)
        return self.target(*given, **{name: getattr(values, name) for name in self._types})

    def try_out(self, *given: Any, options: Mapping[str, Any]) -> Any:
        """Return what ``build`` does; raise PluginMistake, with its file and line, for what that
        raises."""
        with self.blamed("cannot be made with its options"):
            return self.build(*given, options=options)

    @contextmanager
    def blamed(self, wrong: str) -> Iterator[None]:
        """Surround what its own code does: an exception becomes a PluginMistake that says what is
        ``wrong``, with file and line."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == self.file]
            raise PluginMistake(
                f"{self.file}:{lines[-1] if lines else self.line}: {self.kind} {self.name!r}"
                f" {wrong}: {on_one_line(error)}"
            ) from error


class _Options(BaseModel):
    """Options as a sweep file says them."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),
    )


def _frozen(mark: Mark, name: str, value: Any) -> Any:
    """Return a value as specifications hold it: plain, or plain ones in a row."""
    plain = (bool, int, float, str, type(None))
    if isinstance(value, plain):
        return value
    if isinstance(value, list) and all(isinstance(one, plain) for one in value):
        return tuple(value)
    raise mark.mistake(f"has option {name} of a type that is no text, number or list of those")


# What it reads beside itself would be in the id of no run, and not there on another node.
NO_FILE = (
    "there is no __file__: what runs is the text of a plugin, and what it reads beside it is no"
    " part of a run's id; write that into a .py file beside it and import it"
)


def on_one_line(error: BaseException) -> str:
    """Return an error on one line, short enough to stand in another."""
    if isinstance(error, NameError) and error.name == "__file__":
        return NO_FILE
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return said if len(said) <= 150 else f"{said[:149]}…"


# ------------------------------------------------------------------------------------- decorators
def control(name: str) -> Callable[[Target], Target]:
    """Mark a class over ``workers.controls.layer_control.LayerControl`` as a control."""
    return _mark("control", name)


def objective(name: str) -> Callable[[Target], Target]:
    """Mark a class over ``workers.objectives.objective.TrainingObjective`` as an objective.

    It is called with its objective's specification, then its options.
    """
    return _mark("objective", name)


def optimizer(name: str) -> Callable[[Target], Target]:
    """Mark a class over ``workers.updates.update_rule.UpdateRule``, or ``MatrixRule`` beside it, as
    an optimizer.

    It is called with its optimizer's specification, then its options.
    """
    return _mark("optimizer", name)


def selection(name: str) -> Callable[[Target], Target]:
    """Mark a class over ``workers.selection.selection_rule.SelectionRule`` as a selection."""
    return _mark("selection", name)


def metric(name: str) -> Callable[[Target], Target]:
    """Mark a function of two matrices as a metric of representations.

    It is given the reference X and the current state Y, both (n, d) in float64 with the same rows,
    then its options, and returns a number: the change of one layer.
    """
    return _mark("metric", name)


def family(name: str, *, pretraining: str) -> Callable[[Target], Target]:
    """Mark a class over ``transformers.PreTrainedModel`` as what loads models whose configuration
    has ``model_type: <name>``, with the head of their pretraining (clm, mlm or span_corruption)."""
    return _mark("family", name, pretraining=pretraining)


def _mark(kind: str, name: str, **details: Any) -> Callable[[Target], Target]:
    caller = sys._getframe(2)
    file, line = caller.f_code.co_filename, caller.f_lineno
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        said = name if isinstance(name, str) else getattr(name, "__name__", name)
        raise PluginMistake(
            f'{file}:{line}: {kind} {said!r} needs a name of letters, digits and _: @{kind}("name")'
        )

    def marked(target: Target) -> Target:
        try:
            setattr(target, ATTRIBUTE, Mark(kind, name, target, file, line, details))
        except AttributeError:
            raise PluginMistake(f"{file}:{line}: {kind} {name!r} is no class or function") from None
        return target

    return marked


def marks_in(names: Mapping[str, Any]) -> list[Mark]:
    """Return what the names of a module stand for that is marked, each once, in their order.

    What inherits from something marked is not marked itself.
    """
    found: dict[int, Mark] = {}
    for value in names.values():
        own = getattr(value, "__dict__", None)
        mark = own.get(ATTRIBUTE) if own is not None else None
        if isinstance(mark, Mark) and mark.target is value:
            found[id(value)] = mark
    return list(found.values())
