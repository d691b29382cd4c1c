"""Engines on the device against the plain engine in float32 on the CPU, and against each other.

Tiny models of each family's own class, random weights, the cells of the CPU's parity table. What is
compared is the loss of each step and, after the last, the Procrustes distance of every layer from
its past.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sweeps.sources.catalog import FAMILIES
from sweeps.spec import STANDIN_FAMILIES
from tests.engine_cells import (
    BATCH,
    CPU,
    LENGTH,
    OPTIMIZER,
    VOCABULARY,
    Cell,
    batch_of,
    prepare,
)
from tests.gpu.checks import Place, Seen, broken, skipped
from tests.rank_scripts.kinds_on_ranks import KINDS, trained
from workers.depth.stacks import in_twin
from workers.passes import choosing
from workers.passes.torch_passes import TorchPasses
from workers.probes.capture import capture
from workers.probes.rows import ProbeRows
from workers.probes.similarity import compare
from workers.ranks.process_group import ALONE

STEPS = 12
# So few that the model learns them.
BATCHES = 2
# Of the losses, in nats; and of the change of each layer, as a share of it. In float32 what differs
# is the order of sums: 1.9e-6 and 7e-7 on an H100. In bf16 a step of AdamW turns a rounded gradient
# near zero into another step: 4.2e-3 and 3.5e-3 are the most that was found.
LOSS = {"fp32": 2e-5, "bf16": 1e-2}
CHANGE = {"fp32": 1e-4, "bf16": 1e-2}


@dataclass(frozen=True)
class Way:
    """How a cell is carried out."""

    name: str
    stage: int | None = None
    offload: str = "none"


WAYS = (
    Way("plain"),
    *(Way(f"ZeRO-{stage}", stage) for stage in range(4)),
    Way("ZeRO-2 optimizer on the host", 2, "optimizer"),
    Way("ZeRO-3 all on the host", 3, "parameters"),
)


@dataclass(frozen=True)
class Trace:
    """The loss of each step, and the change of each layer over all of them."""

    losses: list[float]
    changes: list[float]

    def off(self, other: Trace) -> tuple[float, float]:
        """Return the largest difference of a loss, and of a change as a share of it."""
        losses = [abs(a - b) for a, b in zip(self.losses, other.losses, strict=True)]
        shares = [
            abs(a - b) / max(b, 1e-9) for a, b in zip(self.changes, other.changes, strict=True)
        ]
        return max(losses), max(shares)


def trace(family: str, precision: str, way: Way, device: torch.device) -> Trace:
    """Train one tiny model; every way begins with the same weights and sees the same batches."""
    cell = Cell(stage=way.stage or 0, family=family, precision=precision, offload=way.offload)
    engine_name = "plain" if way.stage is None else "deepspeed"
    objective, engine, pretrained = prepare(cell, engine_name, ALONE, device)
    backbone = engine.in_float32(pretrained.backbone)
    stacks, rows = in_twin(pretrained.stacks, pretrained.backbone, backbone), some_rows()
    before = capture(backbone, stacks, rows, device)
    losses = []
    for step in range(STEPS):
        batch = batch_of(family, step % BATCHES)
        losses.append(float(objective.accumulate(engine, batch, BATCH)))
        engine.step(OPTIMIZER.learning_rate)
    after = capture(backbone, stacks, rows, device)
    pairs = zip(before, after, strict=True)
    return Trace(losses, [compare(old, new).procrustes for old, new in pairs])


def some_rows() -> ProbeRows:
    """Return the probe of random tokens: all but the first of each of eight sequences."""
    shape = (8, LENGTH)
    ids = torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(1))
    places = torch.cartesian_prod(torch.arange(shape[0]), torch.arange(1, shape[1]))
    return ProbeRows(ids, places[:, 0].contiguous(), places[:, 1].contiguous())


def parity(place: Place, family: str) -> Iterator[Seen]:
    """Carry one family out in every way and precision."""
    reference = trace(family, "fp32", Way("plain"), CPU)
    ways = (WAYS[0], WAYS[3]) if place.small else WAYS
    for precision in LOSS:
        found: dict[str, Trace] = {}
        for way in ways:
            try:
                found[way.name] = trace(family, precision, way, place.device)
            except Exception as error:
                yield broken(f"{precision}, {way.name}", error)
        yield from verdict(precision, found, reference)


def verdict(precision: str, found: dict[str, Trace], reference: Trace) -> Iterator[Seen]:
    """Compare what was found with the CPU's float32, and with each other."""
    if not found:
        return
    off = {name: one.off(reference) for name, one in found.items()}
    loss, change = (max(both[k] for both in off.values()) for k in (0, 1))
    worst = max(off, key=lambda name: off[name][0] / LOSS[precision] + off[name][1])
    between = max(one.off(other)[0] for one in found.values() for other in found.values())
    learned = reference.losses[0] - reference.losses[-1]
    yield Seen(
        f"{precision}, {len(found)} ways, {STEPS} steps: losses within {loss:.1e} of"
        f" {learned:.2f} nats learned, changes within {change:.1e}; between ways {between:.1e};"
        f" furthest {worst}",
        max(loss, between) <= LOSS[precision] and change <= CHANGE[precision],
        {"precision": precision, "off": off, "between": between},
    )


def kinds(place: Place) -> Iterator[Seen]:
    """A few steps of every kind of objective on the device, against the CPU; in bf16 losses are
    asked to be finite: a temperature of 0.05 makes twenty of one rounding."""
    off: dict[str, float] = {}
    infinite: list[str] = []
    for name in list(KINDS)[:: 4 if place.small else 1]:
        try:
            alone = trained(name, place.folder / "cpu")[f"{name}/losses"]
            here = trained(name, place.folder / "here", device=place.device)[f"{name}/losses"]
            half = trained(name, place.folder / "bf16", None, place.device, "bf16")
        except Exception as error:
            yield broken(name, error)
            continue
        off[name] = float((alone - here).abs().max()) * (0.05 if name == "negatives" else 1.0)
        if not half[f"{name}/losses"].isfinite().all():
            infinite.append(name)
    worst = max(off, key=lambda name: off[name], default="none")
    largest = max(off.values(), default=0.0)
    yield Seen(
        f"{len(off)} kinds of objective in float32: losses within {largest:.1e}, furthest {worst};"
        f" not finite in bf16: {', '.join(infinite) or 'none'}",
        largest <= LOSS["fp32"] and not infinite,
        {"off": off},
    )


def families(place: Place) -> Iterator[Seen]:
    """One step and one capture of every family that the catalogue or a stand-in names."""
    yield Seen(f"{len(STANDIN_FAMILIES)} families", set(FAMILIES) <= set(STANDIN_FAMILIES), {})
    for precision in LOSS:
        off: dict[str, float] = {}
        for family in STANDIN_FAMILIES:
            try:
                expected, _ = one_step(family, "fp32", CPU)
                loss, finite = one_step(family, precision, place.device)
                off[family] = abs(loss - expected) if finite else float("inf")
            except Exception as error:
                yield broken(f"{family} in {precision}", error)
        listed = ", ".join(f"{family} {value:.0e}" for family, value in off.items())
        good = bool(off) and max(off.values()) <= LOSS[precision]
        yield Seen(f"{precision}, loss after a step against the CPU: {listed}", good, off)


def one_step(family: str, precision: str, device: torch.device) -> tuple[float, bool]:
    """Return the loss after one step, and whether all captured states are finite."""
    objective, engine, pretrained = prepare(
        Cell(family=family, precision=precision), "plain", ALONE, device
    )
    objective.accumulate(engine, batch_of(family, 0), BATCH)
    engine.step(OPTIMIZER.learning_rate)
    loss = float(objective.accumulate(engine, batch_of(family, 1), BATCH))
    backbone = pretrained.backbone
    states = capture(backbone, pretrained.stacks, some_rows(), device)
    return loss, all(bool(state.isfinite().all()) for state in states)


# Of the two ways of AdamW, over some steps under each control: norms are summed in another order,
# and torch's fused kernel takes 1 - 0.999 in float32, 1.3e-5 of it less than it is.
STEPPED = 2e-5
STEPPED_UNDER = ("standard", "layer_clip", "mean", "matrix")


def stepping(place: Place) -> Iterator[Seen]:
    """Say how far AdamW by Triton's kernels and in torch's operations are apart under each control,
    how long each takes, and which is chosen."""
    if place.small:
        yield skipped("needs a GPU; under Triton's interpreter the suite compares them")
        return
    from tests.rank_scripts import triton_interpreted as steps
    from workers.passes.triton_passes import TritonPasses

    for control in STEPPED_UNDER:
        try:
            found = []
            for way in (TritonPasses, TorchPasses):
                engine = steps.engine_of(control, way, device=place.device, weight_decay=0.1)
                found.append((steps.stepped(engine, 3), steps.state(engine)))
            (mine, kept), (other, expected) = found
            records = max(
                float((steps.numbers(a) / steps.numbers(b) - 1).abs().max())
                for a, b in zip(mine, other, strict=True)
            )
            states = max(
                float((kept[name] - one).norm() / one.norm()) for name, one in expected.items()
            )
            worst = max(records, states)
            figures = {"records": records, "states": states}
            yield Seen(f"{control}: apart by {worst:.1e}", worst <= STEPPED, figures)
        except Exception as error:
            yield broken(control, error)
    kernels, torchs = (choosing.seconds(way, place.device) for way in (TritonPasses, TorchPasses))
    taken = "Triton's kernels" if choosing.wins(place.device) else "torch's operations"
    count = choosing.TRIED_LAYERS * choosing.TRIED_SIZE
    rate = 28 * count / kernels
    yield Seen(
        f"{count / 1e6:.0f} M parameters: Triton {kernels * 1e3:.2f} ms ({rate / 1e12:.2f} TB/s),"
        f" torch {torchs * 1e3:.2f} ms; chosen: {taken}",
        None,
        {"triton": kernels, "torch": torchs},
    )
