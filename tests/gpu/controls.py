"""Each control keeps its law on the device, under both engines, in both precisions; what it costs.

The law is asked of the float32 weights before and after a step, not of what the engine records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from sweeps import spec
from tests.benchmarks.recorded import optimizer_step
from tests.engine_cells import BATCH, CONTROLS, CPU, Cell, batch_of, prepare
from tests.gpu.checks import Place, Seen, broken
from workers.controls.layer_groups import LayerGroup
from workers.engines.engine import Engine
from workers.engines.layer_step import LayerStep
from workers.ranks.process_group import ALONE

STEPS = 3
# ΔW is a difference of float32 weights a thousand times larger.
RATIO, NORM = 1e-4, 1e-5


def moved(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> list[float]:
    """Return ‖ΔW‖ / ‖W‖ of each group, from flat float32 weights."""
    pairs = zip(before, after, strict=True)
    return [float((b - a).double().norm() / a.double().norm()) for a, b in pairs]


def flat(engine: Engine) -> list[torch.Tensor]:
    """Return the weights of each group on the CPU, flat."""
    layers = [engine.layer(i, "weights", CPU) for i in range(len(engine.groups))]
    return [torch.cat([layer[k].flatten() for k in sorted(layer)]).clone() for layer in layers]


def _standard(
    control: Any, step: LayerStep, groups: Sequence[LayerGroup], ratios: list[float]
) -> float:
    """No layer is scaled."""
    del control, groups, ratios
    return max(abs(c - 1.0) for c in step.coefficients) / NORM


def _layer_clip(
    control: Any, step: LayerStep, groups: Sequence[LayerGroup], ratios: list[float]
) -> float:
    """No group's gradient is over the limit, and those below it are as they were; some are cut."""
    del groups, ratios
    if min(step.coefficients) == 1:
        return float("inf")
    over = [
        norm * c / control.max_norm - 1
        for norm, c in zip(step.gradient_norms, step.coefficients, strict=True)
    ]
    below = [
        abs(c - 1.0)
        for norm, c in zip(step.gradient_norms, step.coefficients, strict=True)
        if norm < 0.99 * control.max_norm
    ]
    return max([*over, *below, 0.0]) / NORM


def _equal_step(
    control: Any, step: LayerStep, groups: Sequence[LayerGroup], ratios: list[float]
) -> float:
    """All controlled groups have moved by the same share of their norm: the one asked for."""
    del step
    kinds = {"block"} if control.scope == "blocks" else {group.kind for group in groups}
    own = [ratio for ratio, group in zip(ratios, groups, strict=True) if group.kind in kinds]
    off = max(own) / min(own) - 1
    if not isinstance(control.target, str):
        off = max(off, *(abs(ratio / control.target - 1) for ratio in own))
    # Of single parameters those that begin at zero, as biases do, keep their first step.
    return off / (RATIO if control.unit == "block" else 10 * RATIO)


def _layer_rates(
    control: Any, step: LayerStep, groups: Sequence[LayerGroup], ratios: list[float]
) -> float:
    """Each group's factor is its rate, and it has moved by what is recorded."""
    del groups
    off = max(abs(a - b) for a, b in zip(step.coefficients, control.rates, strict=True))
    said = [u / w for u, w in zip(step.update_norms, step.weight_norms, strict=True)]
    return max(off, *(abs(a / b - 1) for a, b in zip(ratios, said, strict=True))) / RATIO


# By kind, so that a control that is added has none until it is written here.
LAWS: dict[str, Callable[[Any, LayerStep, Sequence[LayerGroup], list[float]], float]] = {
    "standard": _standard,
    "layer_clip": _layer_clip,
    "equal_step": _equal_step,
    "layer_rates": _layer_rates,
}


def plain_engine(place: Place) -> Iterator[Seen]:
    """The laws under the plain engine."""
    yield _every_kind()
    for precision in ("fp32", "bf16"):
        yield from laws(place, "plain", 0, precision)


def deepspeed_engine(place: Place) -> Iterator[Seen]:
    """The laws under DeepSpeed, where the optimizer is called once, per group, per sub-group."""
    for stage, precision in ((0, "fp32"), (2, "fp32"), (2, "bf16"), (3, "bf16")):
        yield from laws(place, "deepspeed", stage, precision)


def _every_kind() -> Seen:
    tried = {control.kind for control in CONTROLS.values()}
    lawless = sorted(set(spec.CONTROLS) - (set(LAWS) & tried))
    return Seen(f"controls {', '.join(spec.CONTROLS)}", not lawless, {"lawless": lawless})


def laws(place: Place, engine_name: str, stage: int, precision: str) -> Iterator[Seen]:
    """Ask each control for its law after every one of some steps."""
    how = "plain" if engine_name == "plain" else f"ZeRO-{stage}"
    shares: dict[str, float] = {}
    for name, control in CONTROLS.items():
        cell = Cell(name, stage, precision=precision)
        try:
            objective, engine, _ = prepare(cell, engine_name, ALONE, place.device)
            worst = 0.0
            for step in range(STEPS):
                before = flat(engine)
                objective.accumulate(engine, batch_of(cell.family, step), BATCH)
                record = engine.step(2e-3)
                ratios = moved(before, flat(engine))
                worst = max(worst, LAWS[control.kind](control, record, engine.groups, ratios))
            shares[name] = worst
        except Exception as error:
            yield broken(f"{how} {precision}, {name}", error)
    if shares:
        listed = ", ".join(f"{name} {share:.2g}" for name, share in shares.items())
        yield Seen(
            f"{how} {precision}: furthest from the law, in tolerances: {listed}",
            max(shares.values()) <= 1,
            shares,
        )


# A decoder of 124M parameters and one of 410M, with the vocabulary that they have.
TIMED = {
    "124 M": optimizer_step.Shape(12, 768, 50257, 15),
    "405 M": optimizer_step.Shape(24, 1024, 50304, 9),
}


def optimizers(place: Place) -> Iterator[Seen]:
    """Time the optimizer's part of a step under each control beside torch's fused AdamW, in turns,
    and what AdamW must move at the rate of a += b."""
    threads = torch.get_num_threads()
    for size, shape in (optimizer_step.SMALL if place.small else TIMED).items():
        count = shape.parameters()
        rate = optimizer_step.bandwidth(count, threads, place.device)
        limit = optimizer_step.BYTES_MOVED * count / rate
        figures: dict[str, Any] = {"parameters": count, "limit": limit}
        for timed in optimizer_step.measured(shape, threads, place.device):
            figures[timed.control] = timed.ratio
            figures[f"{timed.control}, seconds"] = timed.seconds
            figures["torch, seconds"] = timed.torch_seconds
        listed = ", ".join(f"{name} {figures[name]:.2f}" for name in optimizer_step.CONTROLS)
        yield Seen(
            f"{size} parameters, optimizer over torch's fused AdamW"
            f" ({1e3 * figures['torch, seconds']:.2f} ms, moved in {1e3 * limit:.2f}): {listed}",
            None,
            figures,
        )
