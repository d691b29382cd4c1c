"""What a layer control adds to a training step, against plain torch and against our own standard.

    python -m tests.benchmarks.step_overhead [--repeats N] [--small]

A step is forward, backward and optimizer of a Pythia-shaped model of about 6 M parameters on 512
tokens, one thread, CPU time. In each repeat every candidate takes one step on the same batch, in
random order, and what is reported is the median over repeats of the paired difference to a
baseline, as a share of the baseline's median step. Two baselines: AdamW(fused=True) of torch, which
measures nothing, and our standard, which also records three norms a layer. ``obvious`` is the usual
way to equal steps: clone the weights, step, rescale the displacement.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from sweeps.spec import Optimizer
from workers.controls.equal_step import EqualStep
from workers.controls.layer_clip import LayerClip
from workers.controls.layer_control import LayerControl, Standard
from workers.controls.layer_groups import find_layer_groups
from workers.engines.plain import PlainEngine

OPTIMIZER = Optimizer(learning_rate=1e-4, eps=1e-6)
TORCH, STANDARD = "torch AdamW(fused=True)", "standard"
CONTROLS: dict[str, LayerControl] = {
    STANDARD: Standard(),
    "layer_clip": LayerClip(0.05),
    "equal_step fixed": EqualStep(1e-3, "blocks"),
    "equal_step mean": EqualStep("mean", "blocks"),
}


def build(small: bool) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    width, layers, tokens = (64, 2, 64) if small else (256, 6, 512)
    config = GPTNeoXConfig(
        vocab_size=2048,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
        max_position_embeddings=256,
        use_cache=False,
    )
    return AutoModelForCausalLM.from_config(config), torch.randint(0, 2048, (tokens // 64, 64))


def with_torch(small: bool, rescale: bool) -> Callable[[], tuple[float, float]]:
    model, ids = build(small)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, eps=1e-6, weight_decay=0.0, fused=True
    )
    groups = find_layer_groups(model, lambda: model(ids))

    def step() -> tuple[float, float]:
        began = time.process_time()
        model(ids, labels=ids).loss.backward()
        between = time.process_time()
        before = [p.detach().clone() for p in model.parameters()] if rescale else []
        optimizer.step()
        if rescale:
            rescaled(model, groups, before)
        optimizer.zero_grad()
        ended = time.process_time()
        return ended - began, ended - between

    return step


@torch.no_grad()
def rescaled(model, groups, before) -> None:  # type: ignore[no-untyped-def]
    old = {id(p): b for p, b in zip(model.parameters(), before, strict=True)}
    blocks = [group.parameters for group in groups if group.kind == "block"]
    moved = [torch.cat([(p - old[id(p)]).flatten() for p in ps]).norm() for ps in blocks]
    held = [torch.cat([old[id(p)].flatten() for p in ps]).norm() for ps in blocks]
    ratios = torch.stack(moved) / torch.stack(held)
    for scale, parameters in zip(ratios.mean() / ratios, blocks, strict=True):
        for p in parameters:
            p.copy_(old[id(p)] + scale * (p - old[id(p)]))


def with_control(small: bool, control: LayerControl) -> Callable[[], tuple[float, float]]:
    model, ids = build(small)
    groups = find_layer_groups(model, lambda: model(ids))
    engine = PlainEngine(model, groups, control, OPTIMIZER, "fp32")

    def step() -> tuple[float, float]:
        began = time.process_time()
        engine.backward(model(ids, labels=ids).loss)
        between = time.process_time()
        engine.step(1e-4)
        ended = time.process_time()
        return ended - began, ended - between

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--small", action="store_true", help="seconds, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    candidates = {name: with_control(arguments.small, c) for name, c in CONTROLS.items()}
    candidates[TORCH] = with_torch(arguments.small, rescale=False)
    candidates["obvious equal_step mean"] = with_torch(arguments.small, rescale=True)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    shuffled = random.Random(0)
    for repeat in range(arguments.repeats + 2):
        for name in shuffled.sample(list(candidates), len(candidates)):
            spent = candidates[name]()
            if repeat >= 2:  # the first steps fetch code and allocate
                times[name].append(spent)
    parameters = sum(p.numel() for p in build(arguments.small)[0].parameters())
    print(f"{parameters / 1e6:.1f} M parameters, {os.cpu_count()} CPUs, one thread,", end=" ")
    print(f"load {os.getloadavg()[0]:.1f}; the whole step counts, in CPU time")
    print(f"{'':<26}{'step':>9}{'optimizer':>11}{'to torch':>10}{'to standard':>13}")
    for name, taken in times.items():
        step, optimizer = (1e3 * statistics.median(column) for column in zip(*taken, strict=True))
        shares = [overhead(taken, times[baseline]) for baseline in (TORCH, STANDARD)]
        print(f"{name:<26}{step:>6.0f} ms{optimizer:>8.1f} ms{shares[0]:>+9.1%}{shares[1]:>+12.1%}")


def overhead(taken: list[tuple[float, float]], baseline: list[tuple[float, float]]) -> float:
    """Return the median paired difference of the optimizer's part, as a share of a whole step.

    Forward and backward are the same work in every candidate; their noise is left out.
    """
    differences = [mine[1] - other[1] for mine, other in zip(taken, baseline, strict=True)]
    return statistics.median(differences) / statistics.median(whole for whole, _ in baseline)


if __name__ == "__main__":
    main()
