"""What can be a user's own, kind by kind: what it has to be, and which names are taken.

A kind is one entry of ``KINDS``, a decorator in ``marks``, the registry of workers that asks for
it, and tests in ``workers.contract``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.plugins.marks import Mark
from sweeps.spec import (
    CONTROLS,
    METRICS,
    OBJECTIVES,
    OPTIMIZERS,
    PRETRAINING_OBJECTIVES,
    SELECTIONS,
)

CONTROL_BASE = "workers.controls.layer_control:LayerControl"
OBJECTIVE_BASE = "workers.objectives.objective:TrainingObjective"
SELECTION_BASE = "workers.selection.selection_rule:SelectionRule"
OPTIMIZER_BASE = "workers.updates.update_rule:UpdateRule"
FAMILY_BASE = "transformers.modeling_utils:PreTrainedModel"


@dataclass(frozen=True)
class Kind:
    """What something of a kind has to be.

    Attributes:
        base: the class that it inherits from, as ``module:name``; None for a function.
        given: what it is called with before its options, in words; None where depthsweep does not
            call it.
        taken: names that are depthsweep's own.
        wrong: says what else is wrong with one, or None.
    """

    base: str | None
    given: tuple[str, ...] | None
    taken: tuple[str, ...] = ()
    wrong: Callable[[Mark], str | None] = lambda _: None

    def require(self, mark: Mark) -> None:
        """Raise PluginMistake, with its file and line, for what cannot be one."""
        if mark.name in self.taken:
            raise mark.mistake("is depthsweep's own name: choose another")
        complaints = (
            self._wrong_base,
            self._lacking,
            self._wrong_call,
            self._wrong_methods,
            self.wrong,
        )
        for complaint in complaints:
            said = complaint(mark)
            if said is not None:
                raise mark.mistake(said)
        if self.given is not None:
            _ = mark.options  # what is wrong with one is said with its line

    def _wrong_base(self, mark: Mark) -> str | None:
        if self.base is None:
            return (
                None
                if callable(mark.target) and not isinstance(mark.target, type)
                else ("is a class, and has to be a function")
            )
        module, _, name = self.base.partition(":")
        if not isinstance(mark.target, type):
            return f"is a function, and has to be a class over {name} of {module}"
        bases = {f"{one.__module__}:{one.__qualname__}" for one in mark.target.__mro__[1:]}
        return None if self.base in bases else f"has to inherit from {name} of {module}"

    @staticmethod
    def _lacking(mark: Mark) -> str | None:
        lacking = sorted(getattr(mark.target, "__abstractmethods__", ()))
        return f"lacks {' and '.join(lacking)}" if lacking else None

    def _wrong_call(self, mark: Mark) -> str | None:
        if self.given is None:
            return None
        free = [
            name
            for name, one in mark.parameters.items()
            if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        ]
        if len(free) == len(self.given):
            return None
        wanted = ", ".join(self.given) or "nothing"
        return (
            f"takes {', '.join(free) or 'nothing'} and is given {wanted}: options stand after a *"
        )

    def _wrong_methods(self, mark: Mark) -> str | None:
        """A method in place of one of depthsweep's is called as that one is."""
        if self.base is None or self.given is None:
            return None
        base = _nearest_of(mark, self.base)
        for name in dir(base):
            like, own = (inspect.getattr_static(one, name) for one in (base, mark.target))
            if name.startswith("__") or own is like or not inspect.isfunction(like):
                continue
            wanted = list(inspect.signature(like).parameters.values())[1:]
            if not callable(getattr(mark.target, name)):
                return f"has {name}, which has to be a method"
            taken = _without_self(own, getattr(mark.target, name))
            if taken is not None and not _takes(taken, wanted):
                return (
                    f"has {name}({', '.join(taken.parameters)}), which is called with"
                    f" ({', '.join(one.name for one in wanted)})"
                )
        return None


def _base_of(mark: Mark, base: str) -> type:
    classes: tuple[type, ...] = mark.target.__mro__
    return next(c for c in classes if f"{c.__module__}:{c.__qualname__}" == base)


def _nearest_of(mark: Mark, base: str) -> type:
    """Return the class of depthsweep's that is nearest above: the base, or one over it."""
    package = base.partition(".")[0]
    above: tuple[type, ...] = mark.target.__mro__[1:]
    return next(c for c in above if c.__module__.partition(".")[0] == package)


def _without_self(static: Any, method: Callable[..., Any]) -> inspect.Signature | None:
    """Return what a method is called with; None where it does not say."""
    try:
        found = inspect.signature(method)
    except (TypeError, ValueError):
        return None
    if isinstance(static, (staticmethod, classmethod)):
        return found
    rest = list(found.parameters.values())
    takes_any = bool(rest) and rest[0].kind is rest[0].VAR_POSITIONAL
    return found.replace(parameters=rest if takes_any else rest[1:])


def _takes(taken: inspect.Signature, wanted: Sequence[inspect.Parameter]) -> bool:
    """Return whether something can be called with all that is wanted, and without what may be left
    out."""
    for left_out in (False, True):
        given = [one for one in wanted if not (left_out and one.default is not one.empty)]
        by_name = {one.name: None for one in given if one.kind is one.KEYWORD_ONLY}
        try:
            taken.bind(*[None] * (len(given) - len(by_name)), **by_name)
        except TypeError:
            return False
    return True


def _wrong_control(mark: Mark) -> str | None:
    """A control scales something, by a method of its own."""
    base = _base_of(mark, CONTROL_BASE)
    does_something = False
    for flag, method in (
        ("scales_gradients", "gradient_scale"),
        ("scales_updates", "update_scale"),
    ):
        said = bool(getattr(mark.target, flag))
        written = getattr(mark.target, method) is not getattr(base, method)
        if said and not written:
            return f"says {flag} and lacks {method}"
        if written and not said:
            return f"has {method}, which is never called: write `{flag} = True`"
        does_something |= said
    return None if does_something else "lacks gradient_scale and update_scale: it would do nothing"


def _wrong_objective(mark: Mark) -> str | None:
    roles: Any = getattr(mark.target, "roles", None)
    if not isinstance(roles, tuple) or not roles or not all(isinstance(r, str) for r in roles):
        return 'lacks roles, what it reads of a dataset: `roles = ("text", "label")`'
    return None


def _wrong_selection(mark: Mark) -> str | None:
    """The share is said of every selection, and no rule is told it."""
    if "share" in mark.parameters:
        return "has an option share, which every selection has already: leave it out"
    return None


def _wrong_family(mark: Mark) -> str | None:
    pretraining = mark.details.get("pretraining")
    if pretraining not in PRETRAINING_OBJECTIVES:
        return f"has pretraining {pretraining!r}: one of {', '.join(PRETRAINING_OBJECTIVES)}"
    config: Any = getattr(mark.target, "config_class", None)
    said = getattr(config, "model_type", None)
    if said != mark.name:
        return f"has a config_class whose model_type is {said!r}: it has to be {mark.name!r}"
    return None


KINDS: dict[str, Kind] = {
    "control": Kind(CONTROL_BASE, (), CONTROLS, _wrong_control),
    "objective": Kind(OBJECTIVE_BASE, ("its specification",), OBJECTIVES, _wrong_objective),
    "optimizer": Kind(OPTIMIZER_BASE, ("its specification",), OPTIMIZERS),
    "selection": Kind(SELECTION_BASE, (), SELECTIONS, _wrong_selection),
    "metric": Kind(None, ("the reference", "the current state"), METRICS),
    "family": Kind(FAMILY_BASE, None, (), _wrong_family),
}
