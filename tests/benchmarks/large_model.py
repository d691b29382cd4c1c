"""Pythia-6.9B's real architecture on one GPU: memory against the plan's estimate, speed, overhead.

    python -m tests.benchmarks.large_model [--control NAME] [--offload none|optimizer] [--steps N]
    python -m tests.benchmarks.large_model --small    # the same on this machine's CPU, in seconds

Weights are random, nothing is downloaded, Ray is not used. A process measures one control, since
DeepSpeed keeps models alive; without ``--control`` each gets a process of its own. Without
``--offload`` the plan's own choice for this GPU is taken. ``obvious`` clones the weights, takes the
standard step and rescales the displacement (the usual way to equal steps).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from orchestrator.sizing.activations import kept_by_config
from orchestrator.sizing.choice import choose, execution_text
from orchestrator.sizing.memory import GIB, ModelShape, estimate_memory
from sweeps.sources.catalog import CATALOG
from sweeps.spec import (
    BuiltinData,
    Control,
    EqualStep,
    Execution,
    HubModel,
    LayerClip,
    ModelSpec,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    Standard,
)
from workers.controls.layer_groups import find_layer_groups
from workers.controls.registry import build_control
from workers.engines.engine import Engine
from workers.engines.registry import build_engine
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.registry import build_objective
from workers.ranks.process_group import ALONE

CONTROLS: dict[str, Control] = {
    "standard": Standard(),
    "layer_clip": LayerClip(max_norm=1.0),
    "equal_step_fixed": EqualStep(target=1e-4),
    "equal_step_mean": EqualStep(),
    "obvious": Standard(),
}
# Dense bf16 peaks, FLOP/s, from the vendor's data sheets.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
DATA = BuiltinData(builtin="python-docs", digest="0" * 64)


def run_of(control: str, small: bool, execution: Execution) -> RunSpec:
    known = CATALOG["pythia-6.9b"]
    source = HubModel(hub=known.hub, revision=known.revision, pretraining="clm")
    return RunSpec(
        model=ModelSpec(name="pythia-6.9b", source=source),
        objective=Objective(kind="clm", data=DATA),
        control=CONTROLS[control],
        seed=0,
        steps=100,
        batch_size=4 if small else 32,
        sequence_length=32 if small else 128,
        optimizer=Optimizer(learning_rate=1e-5),
        precision="bf16",
        probe=Probe(data=DATA, rows=512),
        execution=execution,
    )


def architecture(small: bool) -> GPTNeoXConfig:
    """Return EleutherAI/pythia-6.9b's configuration, or one a thousandth of its size."""
    return GPTNeoXConfig(
        vocab_size=512 if small else 50432,
        hidden_size=128 if small else 4096,
        num_hidden_layers=3 if small else 32,
        num_attention_heads=4 if small else 32,
        intermediate_size=512 if small else 16384,
        max_position_embeddings=2048,
        rotary_pct=0.25,
        use_parallel_residual=True,
        tie_word_embeddings=False,
        use_cache=False,
    )


def cloned(engine: Engine) -> list[list[torch.Tensor]]:
    return [
        [shard.weights.detach().clone() for shard in layer] for layer in engine.optimizer.layers
    ]


@torch.no_grad()
def rescale(engine: Engine, before: list[list[torch.Tensor]]) -> None:
    """Rescale each block's displacement from the clones to the blocks' mean ratio."""
    blocks = [i for i, group in enumerate(engine.groups) if group.kind == "block"]
    moved, held = [], []
    for i in blocks:
        pairs = list(zip(engine.optimizer.layers[i], before[i], strict=True))
        moved.append(torch.stack([(s.weights - old).norm() for s, old in pairs]).norm())
        held.append(torch.stack([old.norm() for _, old in pairs]).norm())
    ratios = torch.stack(moved) / torch.stack(held)
    for i, scale in zip(blocks, ratios.mean() / ratios, strict=True):
        for shard, old in zip(engine.optimizer.layers[i], before[i], strict=True):
            shard.weights.data.copy_(old + scale * (shard.weights - old))
    engine.publish()


def measure(control: str, small: bool, offload: str | None, steps: int) -> None:
    device = torch.device("cpu" if small else "cuda")
    torch.manual_seed(0)
    config = architecture(small)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    shape = ModelShape(
        sum(p.numel() for p in model.parameters()),
        config.num_hidden_layers,
        config.hidden_size,
        config.vocab_size,
        kept_by_config(config.to_dict()),
    )
    said = Execution(offload=offload)
    run = run_of(control, small, said)
    if small:
        update = {"engine": "deepspeed", "zero_stage": 2, "micro_batch_size": run.batch_size}
        how = said.settled().model_copy(update=update)
    else:
        chosen = choose(run, float(torch.cuda.get_device_properties(0).total_memory), 1)
        assert chosen is not None
        how = chosen.execution
    run = run.model_copy(update={"execution": how})
    planned = estimate_memory(run, shape, how)
    objective = build_objective(run.objective)
    pretrained = PretrainedModel(model, None, ModelFacts("gpt_neox", "", "", 0, 0, 0))
    trained = objective.build_model(pretrained)
    sample = {"input_ids": torch.zeros((1, 4), dtype=torch.long)}
    groups = find_layer_groups(trained, lambda: objective.loss_sum(trained, sample))
    engine = build_engine(
        run, trained, pretrained, groups, build_control(run.control), ALONE, device
    )
    shown = (run.batch_size, run.sequence_length)
    ids = torch.randint(0, config.vocab_size, shown, generator=torch.Generator().manual_seed(0))
    taken, optimizer = [], []
    for step in range(steps + 1):
        began = _now(device)
        objective.accumulate(engine, {"input_ids": ids}, run.micro_batch_size)
        between = _now(device)
        before = cloned(engine) if control == "obvious" else None
        engine.step(1e-5)
        if before is not None:
            rescale(engine, before)
        if step:  # the first allocates
            taken.append(_now(device) - began)
            optimizer.append(_now(device) - between)
    seconds = statistics.median(taken)
    tokens = run.batch_size * run.sequence_length / seconds
    line = f"{control:<17}{seconds:>8.3f} s{statistics.median(optimizer):>9.3f} s{tokens:>10.0f}"
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / GIB
        name = torch.cuda.get_device_name()
        best = next((flops for part, flops in PEAKS.items() if part in name), None)
        used = f"{6 * shape.parameters * tokens / best:.1%}" if best else "?"
        line += f"{used:>7}{peak:>7.1f} of {planned.total / GIB:.1f} GiB planned"
    print(f"{line}  {execution_text(how)}", flush=True)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--control", choices=CONTROLS)
    parser.add_argument("--offload", choices=("none", "optimizer", "parameters"))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        print("large_model needs a GPU of at least 78 GiB; --small runs it in little on the CPU")
        return 2
    if arguments.control:
        torch.set_num_threads(1 if arguments.small else torch.get_num_threads())
        measure(arguments.control, arguments.small, arguments.offload, arguments.steps)
        return 0
    where = "the CPU, in little" if arguments.small else torch.cuda.get_device_name()
    print(f"pythia-6.9b on {where}, {time.strftime('%Y-%m-%d')}, torch {torch.__version__}")
    print(f"{'control':<17}{'step':>10}{'optimizer':>11}{'tokens/s':>10}    MFU  peak memory")
    codes = []
    for control in CONTROLS:
        again = [sys.executable, "-m", "tests.benchmarks.large_model", *sys.argv[1:]]
        codes.append(subprocess.run([*again, "--control", control]).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
