"""What it costs to choose a step's examples by their gradients.

    python -m tests.benchmarks.selecting [--repeats N] [--small] [--tokens T] [--family F]

A step is forward, backward and optimizer of a model of about 6 M parameters, one thread, CPU time.
Three steps are taken in each repeat, in random order: with a selection of share 0.2, which measures
all candidates and trains on a fifth of them; on as many examples as there are candidates; and on as
many as are chosen. What is reported is the median step, and its ratio to the other two. The last
line is the obvious way to the norms, one backward pass an example.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, MambaConfig

from sweeps.spec import Optimizer
from workers.controls.layer_control import Standard
from workers.controls.layer_groups import find_layer_groups
from workers.engines.plain import PlainEngine
from workers.sample_gradients.measuring import SampleGradients, rows_of

FAMILIES = ("gpt_neox", "gpt2", "mamba")
CHOSEN, SHARE = 2, 0.2
VOCABULARY = 2048
WAYS = ("selecting", "all candidates", "the chosen alone", "norms, one backward an example")


def build(family: str, small: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    width, layers = (64, 2) if small else (256, 6)
    shape = {"hidden_size": width, "num_hidden_layers": layers, "use_cache": False}
    configs = {
        "gpt_neox": lambda: GPTNeoXConfig(
            vocab_size=VOCABULARY,
            num_attention_heads=width // 32,
            intermediate_size=4 * width,
            **shape,
        ),
        "gpt2": lambda: GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=width,
            n_layer=layers,
            n_head=width // 32,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        ),
        "mamba": lambda: MambaConfig(vocab_size=VOCABULARY, state_size=8, **shape),
    }
    return AutoModelForCausalLM.from_config(configs[family]()).eval()


def ways(family: str, small: bool, tokens: int) -> dict[str, Callable[[], None]]:
    """Return a step in each of the ways, all of one model."""
    model = build(family, small)
    candidates = torch.randint(0, VOCABULARY, (round(CHOSEN / SHARE), tokens))

    def losses(part: dict[str, Tensor]) -> Tensor:
        logits, wanted = model(part["ids"]).logits[:, :-1], part["ids"][:, 1:]
        each = cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        return each.view(wanted.shape).mean(1)

    groups = find_layer_groups(model, lambda: losses({"ids": candidates[:2]}).sum())
    engine = PlainEngine(model, groups, Standard(), Optimizer(learning_rate=1e-5), "fp32")
    gradients = SampleGradients(groups)
    gradients.learn(losses, {"ids": candidates[:3]}, 1e-3)
    assert not gradients.one_by_one

    def train(ids: Tensor) -> None:
        for part in ids.split(CHOSEN):
            engine.backward(losses({"ids": part}).sum() / len(ids))
        engine.step(1e-5)

    def measured() -> Tensor:
        parts = [{"ids": part} for part in candidates.split(CHOSEN)]
        return torch.cat([gradients.squares(losses, part)[1] for part in parts])

    def selecting() -> None:
        order = measured().sum(1).argsort(descending=True)
        train(candidates[order[:CHOSEN]])

    def one_by_one() -> None:
        for part in rows_of({"ids": candidates}):
            engine.backward(losses(part).sum())
            _ = [float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None]
            model.zero_grad()

    steps = (selecting, lambda: train(candidates), lambda: train(candidates[:CHOSEN]), one_by_one)
    return dict(zip(WAYS, steps, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=128, help="of an example")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--small", action="store_true", help="seconds, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shuffled = random.Random(0)
    print(f"{os.cpu_count()} CPUs, one thread, load {os.getloadavg()[0]:.1f}, CPU time")
    print(f"{'':<14}{'selecting':>11}{'to all candidates':>19}{'to the chosen':>15}{'obvious':>10}")
    for family in arguments.family or FAMILIES:
        taken: dict[str, list[float]] = {name: [] for name in WAYS}
        steps = ways(family, arguments.small, arguments.tokens)
        for repeat in range(arguments.repeats + 1):
            for name in shuffled.sample(WAYS, len(WAYS)):
                began = time.process_time()
                steps[name]()
                if repeat:  # the first steps fetch code and allocate
                    taken[name].append(time.process_time() - began)
        step, whole, part, obvious = (1e3 * statistics.median(taken[name]) for name in WAYS)
        print(
            f"{family:<14}{step:>8.0f} ms{step / whole:>18.2f}x{step / part:>14.2f}x"
            f"{obvious:>7.0f} ms"
        )


if __name__ == "__main__":
    main()
