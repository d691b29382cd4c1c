"""The optimizer: the rule of its steps, and what decides their size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sweeps.spec.frozen import Frozen, Positive
from sweeps.spec.plugin import Options, PluginCode


@dataclass(frozen=True)
class Rule:
    """What is known of a rule without torch.

    Attributes:
        options: its own settings, with what they are unless said.
        kept: numbers it keeps of each parameter from step to step; of one whose state is smaller
            than the weights, or differs between them, the most.
        whole_matrices: it needs whole parameters, so that ranks cannot share them.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    kept: int = 0
    whole_matrices: bool = False


RULES: dict[str, Rule] = {
    "adamw": Rule({"betas": (0.9, 0.999), "eps": 1e-6}, kept=2),
    "sgd": Rule({"momentum": 0.9}, kept=1),
    "lion": Rule({"betas": (0.9, 0.99)}, kept=1),
    "adafactor": Rule(whole_matrices=True),
    "muon": Rule(
        {"momentum": 0.95, "betas": (0.9, 0.999), "eps": 1e-6}, kept=2, whole_matrices=True
    ),
}
OPTIMIZERS = tuple(RULES)


class PluginRule(Frozen):
    """What a rule of a user's own is made by; what else is known of it follows from that."""

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"state_tensors", "whole_matrices"})

    options: Options = Field(default_factory=dict, description="All of its options.")
    code: PluginCode
    state_tensors: Annotated[int, Field(ge=0)] = Field(
        description="Numbers it keeps of each parameter, as ``Rule.kept``."
    )
    whole_matrices: bool = False


class Optimizer(Frozen):
    """A rule of steps, with linear warm-up and then a schedule that ends at the last step.

    Options that are not given are the rule's own; one that it has no use for is refused.
    """

    rule: str = "adamw"
    learning_rate: Positive
    betas: tuple[float, float] = (0.9, 0.999)
    eps: Positive = 1e-6
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    decay_all: bool = Field(
        True,
        description="Weight decay moves biases and the weights of norms, too. Of a sweep file the"
        " default is that it does not; a record that has no word of it is of before there was one.",
    )
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["linear", "constant", "cosine", "wsd"] = "linear"
    decay_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share of the steps in which wsd decays."
    )
    max_grad_norm: Positive | None = Field(
        None, description="Global gradient clipping over all parameters together."
    )
    own: PluginRule | None = Field(None, description="What a rule of the user's own is made by.")

    @model_validator(mode="before")
    @classmethod
    def _the_rules_own(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        rule, schedule = data.get("rule"), data.get("schedule")
        usual = dict(RULES[rule].options) if isinstance(rule, str) and rule in RULES else {}
        usual |= {"decay_share": 0.2} if schedule == "wsd" else {}
        # What comes from JSON has lists, which are no tuples any more once it has passed here.
        said = {key: _with_tuples(one) for key, one in data.items()}
        return {**said, **{k: v for k, v in usual.items() if said.get(k) is None}}

    @model_validator(mode="after")
    def _rule_is_known(self) -> Optimizer:
        if (self.rule in RULES) == (self.own is not None):
            own = "has no code" if self.own is None else "is depthsweep's own, and no plugin's"
            raise ValueError(f"optimizer {self.rule} {own}")
        return self

    @model_validator(mode="after")
    def _in_range(self) -> Optimizer:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas must lie in [0, 1)")
        for name in {name for rule in RULES.values() for name in rule.options}:
            unused = name not in self._known.options
            if unused and getattr(self, name) != type(self).model_fields[name].default:
                users = [one for one, rule in RULES.items() if name in rule.options]
                raise ValueError(
                    f"{name} does nothing with {self.rule}; it goes with {', '.join(users)}"
                )
        if self.schedule != "wsd" and self.decay_share is not None:
            raise ValueError(f"decay_share does nothing with {self.schedule}; it goes with wsd")
        return self

    @property
    def _known(self) -> Rule:
        """What is known of its rule without torch."""
        own = self.own
        return RULES[self.rule] if own is None else Rule({}, own.state_tensors, own.whole_matrices)

    @property
    def unused(self) -> frozenset[str]:
        """The fields that mean nothing beside the others."""
        every = {name for rule in RULES.values() for name in rule.options}
        found = every - set(self._known.options)
        found |= {"own"} if self.own is None else set()
        found |= {"decay_all"} if self.weight_decay == 0 else set()
        return frozenset(found | (set() if self.schedule == "wsd" else {"decay_share"}))

    @property
    def kept(self) -> int:
        """Numbers kept of each parameter from step to step, at the most."""
        return 0 if self.momentum == 0 and self.rule == "sgd" else self._known.kept

    @property
    def whole_matrices(self) -> bool:
        """Whether ranks cannot share a parameter."""
        return self._known.whole_matrices

    def for_memory(self) -> Optimizer:
        """Return the one that stands for all whose steps take the same memory: of the same rule,
        with a momentum or without, with clipping or without."""
        momentum = 0.0 if self.momentum == 0 else None
        clip = None if self.max_grad_norm is None else 1.0
        return Optimizer(
            rule=self.rule, learning_rate=1.0, max_grad_norm=clip, momentum=momentum, own=self.own
        )

    def decay_steps(self, steps: int) -> int:
        """Return in how many of a run's steps wsd decays."""
        return max(1, round((self.decay_share or 0.0) * steps))

    def require_steps(self, steps: int) -> None:
        """Raise ValueError where the schedule does not fit into so many steps."""
        if self.warmup_steps >= steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {steps}")
        if self.schedule == "wsd" and self.warmup_steps + self.decay_steps(steps) > steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and the decay of wsd"
                f" ({self.decay_steps(steps)} steps) do not both fit into steps {steps}"
            )


def _with_tuples(value: Any) -> Any:
    """Return plain data with tuples in place of lists."""
    if isinstance(value, dict):
        return {key: _with_tuples(one) for key, one in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def learning_rate(optimizer: Optimizer, step: int, steps: int) -> float:
    """Learning rate of ``step`` in 1..steps: linear warm-up, then the schedule.

    Warm-up reaches the peak at step ``warmup_steps + 1``. Every decay would reach zero one step
    after the last, so that every step moves the weights: linear and cosine from the end of warm-up,
    wsd (warm-up, stable, decay: Hu et al. 2024, arXiv 2404.06395) linearly in its last steps.
    """
    done, peak = step - 1, optimizer.learning_rate
    if done < optimizer.warmup_steps:
        return peak * (done + 1) / (optimizer.warmup_steps + 1)
    if optimizer.schedule == "constant":
        return peak
    remaining = (steps - done) / (steps - optimizer.warmup_steps)
    if optimizer.schedule == "cosine":
        return peak * (1 - math.cos(math.pi * remaining)) / 2
    if optimizer.schedule == "wsd":
        decay = optimizer.decay_steps(steps)
        return peak * min(1.0, (steps - done) / (decay + 1))
    return peak * remaining
