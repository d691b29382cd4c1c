"""What a probe costs at paper.yaml's settings: all layers, and a layer's metrics in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sweeps.spec import Execution
from tests.benchmarks import similarity
from tests.gpu.catalogue import paper_run
from tests.gpu.checks import Place, Seen
from tests.gpu.device import now, seconds_of
from tests.gpu.sizes import build, probe_rows
from workers.depth.stacks import in_twin
from workers.probes.capture import ReferenceStates, capture
from workers.probes.measure import DepthProbe
from workers.probes.similarity import Reference, compare

MODEL = "gpt2"
CPU = torch.device("cpu")
# Of the squared distance, of which each has an error of about 1e-15.
AGREES = 1e-13


def probes(place: Place) -> Iterator[Seen]:
    """Time a probe of GPT-2 124M against its training steps, then the metrics by shape."""
    yield from share_of_a_run(place.device)
    yield from metrics(place)


def share_of_a_run(device: torch.device) -> Iterator[Seen]:
    """Time reference, measurement and jackknife, as a share of a run's steps."""
    run = paper_run(MODEL).model_copy(update={"execution": Execution(engine="plain").settled()})
    training = build(MODEL, run, device)
    backbone = training.engine.in_float32(training.pretrained.backbone)
    stacks = in_twin(training.pretrained.stacks, training.pretrained.backbone, backbone)
    rows = probe_rows(run, training.pretrained.facts.width, 500)
    began = now(device)
    states = capture(backbone, stacks, rows, device)
    captured = now(device)
    probe = DepthProbe(run.probe, ReferenceStates(rows, states), backbone, stacks, device)
    prepared = now(device)
    step = seconds_of(training.step, device, 5)
    began_probe = now(device)
    probe.measure(1)
    first = now(device) - began_probe
    once = seconds_of(lambda: probe.measure(2), device, 2, warm=0)
    whole = seconds_of(lambda: probe.measure(3, jackknife=True), device, 1, warm=0)
    measured = len(run.probe_steps)
    total = (prepared - began) + (measured - 1) * once + whole
    share = total / (total + run.steps * step)
    yield Seen(
        f"{MODEL}, {len(states)} layers, {len(rows.position)} rows: reference"
        f" {prepared - began:.1f} s (capture {captured - began:.1f}), one probe {once:.2f} s (the"
        f" first {first:.1f}), with the jackknife {whole:.1f} s; {measured} probes are"
        f" {share:.0%} of a run of {run.steps} steps of {1e3 * step:.0f} ms",
        None,
        {"probe": once, "jackknife": whole, "step": step, "share": share},
    )


def metrics(place: Place) -> Iterator[Seen]:
    """Time all six metrics of a layer on the device and on its host, beside Procrustes alone as
    netrep computes it on the device, and the limit that `tests.benchmarks.similarity` states."""
    for shape in similarity.SMALL if place.small else similarity.SHAPES:
        pair = similarity.make_pair(shape.n, shape.d, 0.1, torch.Generator().manual_seed(0))
        still = similarity.make_pair(
            shape.n, shape.d, 1e-6, torch.Generator().manual_seed(1), turned=False
        )
        figures: dict[str, float] = {}
        squares = []
        for where, device in (("device", place.device), ("host", CPU)):
            x, y, z, w = (one.to(device) for one in (pair.x, pair.y, still.x, still.y))
            moved, little = Reference.of(x), Reference.of(z)
            squares.append(compare(moved, y).procrustes ** 2)
            figures[where] = seconds_of(lambda r=moved, y=y: compare(r, y), device, 3, warm=1)
            figures[f"{where}, tiny"] = seconds_of(
                lambda r=little, w=w: compare(r, w), device, 3, warm=1
            )
            if where == "device":
                figures["netrep"] = seconds_of(
                    lambda x=x, y=y: similarity.netrep_style(x, y), device, 1, warm=1
                )
        figures["limit"] = sum(similarity.work(shape.n, shape.d)) / product_rate(
            min(shape.n, shape.d), place.device
        )
        yield Seen(
            f"{shape.n} x {shape.d}: six metrics {1e3 * figures['device']:.0f} ms on the device"
            f" ({1e3 * figures['device, tiny']:.0f} of a tiny change), {1e3 * figures['host']:.0f}"
            f" ({1e3 * figures['host, tiny']:.0f}) on its host; Procrustes alone by SVD"
            f" {1e3 * figures['netrep']:.0f}; products at the device's rate"
            f" {1e3 * figures['limit']:.1f}",
            abs(squares[0] - squares[1]) <= AGREES,
            figures,
        )


def product_rate(side: int, device: torch.device) -> float:
    """Return the FLOP/s of a float64 product of square matrices."""
    a = torch.randn(side, side, dtype=torch.float64, device=device)
    return 2.0 * side**3 / seconds_of(lambda: a @ a, device, 10, warm=3)
