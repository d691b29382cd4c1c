"""What a probe costs at paper.yaml's settings: all layers, and its SVD in float64."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from sweeps.spec import Execution
from tests.gpu.catalogue import paper_run
from tests.gpu.checks import Place, Seen
from tests.gpu.device import now, seconds_of
from tests.gpu.sizes import build, probe_rows
from workers.depth.stacks import in_twin
from workers.probes.capture import ReferenceStates, capture
from workers.probes.measure import DepthProbe

MODEL = "gpt2"
WIDTHS = (768, 1024, 2048)
# The next width takes about eight times as long.
PATIENCE = 3.0


def probes(place: Place) -> Iterator[Seen]:
    """Time a probe of GPT-2 124M against its training steps, then the SVD by width."""
    yield from share_of_a_run(place.device)
    yield from factorisations(place)


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


def factorisations(place: Place) -> Iterator[Seen]:
    """Time svdvals and eigvalsh in float64, on the device and on the host."""
    sizes = (64,) if place.small else WIDTHS
    for label, device in (("the device", place.device), ("the host", torch.device("cpu"))):
        found, last = [], 0.0
        for width in sizes:
            if last > PATIENCE:
                break
            made = torch.randn(width, width, dtype=torch.float64, device=device)
            began = time.perf_counter()
            values = seconds_of(lambda a=made: torch.linalg.svdvals(a), device, 1, warm=1)
            gram = made @ made.T
            eigen = seconds_of(lambda a=gram: torch.linalg.eigvalsh(a), device, 1, warm=1)
            last = time.perf_counter() - began
            found.append((width, values, eigen))
        listed = ", ".join(f"{w}: {1e3 * v:.0f} and {1e3 * e:.0f} ms" for w, v, e in found)
        yield Seen(f"float64 svdvals and eigvalsh on {label}, by width: {listed}", None)
