"""Triton's kernels under its interpreter, on a CPU, against torch's operations.

A process of its own: ``TRITON_INTERPRET`` has to be set before Triton is imported, and is then set
for all of it. Prints as JSON, by control and options, how far records and states are apart as a
share of the tolerance; see ``tests/workers/passes/test_triton_passes.py``.
"""

import json
import os

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import nn

from sweeps import spec
from workers.controls.layer_groups import LayerGroup
from workers.controls.registry import build_control
from workers.engines import layer_optimizer
from workers.engines.plain import PlainEngine
from workers.passes import choosing, triton_passes
from workers.passes.torch_passes import TorchPasses
from workers.passes.triton_passes import TritonPasses

RATE, STEPS = 1e-2, 2
# One row of several blocks, with a rest; rows that share a flat tensor; one that is cut in two.
SHAPES = [(33, 20), (7,), (70,), (5, 4)]
SLAB, BLOCK = 512, 64
CONTROLS = {
    "standard": spec.Standard(),
    "layer_clip": spec.LayerClip(max_norm=0.05),
    "mean": spec.EqualStep(),
    "budget, all": spec.EqualStep(target="budget", scope="all"),
    "matrix": spec.EqualStep(target="median", unit="matrix"),
}
OPTIONS = {
    "plain": {},
    "decay of some": {"weight_decay": 0.1, "decay_all": False},
    "clipped": {"max_grad_norm": 0.3, "weight_decay": 0.1},
}
NORMS, WEIGHTS = 1e-6, 1e-6


def engine_of(control, passes, device="cpu", **options):
    generator = torch.Generator().manual_seed(0)
    groups = []
    for layer, kind in enumerate(("embedding", "block", "block")):
        drawn = [torch.randn(shape, generator=generator) * 0.1 for shape in SHAPES]
        weights = [one.to(device) for one in drawn]
        names = tuple(f"{layer}.{k}.weight" for k in range(len(SHAPES)))
        groups.append(LayerGroup(layer, kind, names, tuple(map(nn.Parameter, weights))))
    model = nn.ParameterList([p for group in groups for p in group.parameters])
    optimizer = spec.Optimizer(learning_rate=RATE, eps=1e-6, **options)
    rule = build_control(CONTROLS[control])
    chosen, layer_optimizer.passes_for = layer_optimizer.passes_for, passes
    try:
        return PlainEngine(model, groups, rule, optimizer, "fp32", SLAB)
    finally:
        layer_optimizer.passes_for = chosen


def stepped(engine, steps=STEPS, record=True):
    records = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in engine.model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * 0.01
            parameter.grad = drawn.to(parameter.device)
        records.append(engine.step(RATE / (1 + step), record))
    return records


def state(engine):
    return {
        name: torch.cat([engine.optimizer.tensor(s, name) for layer in shards for s in layer])
        for name in ("weights", "exp_avg", "exp_avg_sq")
        for shards in [engine.optimizer.layers]
    }


def numbers(record):
    lists = (record.gradient_norms, record.weight_norms, record.update_norms, record.coefficients)
    return torch.tensor(
        [*(x for one in lists for x in one), record.total_gradient_norm, record.clip_coefficient],
        dtype=torch.float64,
    )


def apart(control, options):
    """Return the largest differences, in tolerances, of records and of states, and whether a step
    that is not recorded is the same to the last bit."""
    mine, other = (engine_of(control, way, **options) for way in (TritonPasses, TorchPasses))
    pairs = list(zip(stepped(mine), stepped(other), strict=True))
    records = max(float(((numbers(a) / numbers(b)) - 1).abs().max()) for a, b in pairs)
    states = {name: (state(mine)[name], expected) for name, expected in state(other).items()}
    off = max(float((a - b).norm() / b.norm()) for a, b in states.values())
    again = engine_of(control, TritonPasses, **options)
    assert stepped(again, record=False) == [None] * STEPS
    same = all(torch.equal(state(again)[name], a) for name, (a, _) in states.items())
    return {"records": records / NORMS, "states": off / WEIGHTS, "same": same}


def measured(control):
    """Return the largest difference of norms that are measured without a step, in tolerances."""
    found = []
    for way in (TritonPasses, TorchPasses):
        engine = engine_of(control, way)
        for parameter in engine.model.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        found.append(engine.measure())
    mine, other = (torch.tensor([r.gradient_norms, r.weight_norms]) for r in found)
    return float((mine / other - 1).abs().max()) / NORMS


def main():
    torch.set_num_threads(1)
    triton_passes.BLOCK = BLOCK
    found = {
        f"{control}; {name}": apart(control, options)
        for control in CONTROLS
        for name, options in OPTIONS.items()
        if not (control == "layer_clip" and "max_grad_norm" in options)
    }
    choosing.TRIED_LAYERS, choosing.TRIED_SIZE, choosing.TRIED_STEPS = 2, 1000, 1
    seconds = choosing.seconds(TritonPasses, torch.device("cpu"))
    print(json.dumps({"apart": found, "measured": measured("standard"), "seconds": seconds}))


if __name__ == "__main__":
    main()
