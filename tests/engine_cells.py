"""Cells of the parity table: a tiny model trained a few steps by an engine, as one flat vector.

The same cell runs in this process on the plain engine, or in rank processes on DeepSpeed:
``python tests/engine_cells.py cells.json result.safetensors`` under the environment of a rank.
"""

import json
import os
import socket
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from sweeps import spec
from tests.own_sweep import own_optimizer
from tests.servers.forked_ranks import PATHS, run_forked, run_fresh
from workers.adapters.lora import add_lora
from workers.assembly import show_batches
from workers.controls.layer_groups import find_layer_groups
from workers.controls.registry import build_control
from workers.engines.plain import PlainEngine
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.models.standins import build_config, build_tokenizer
from workers.objectives.language_modelling import IGNORED
from workers.objectives.registry import build_objective
from workers.passes import choosing
from workers.ranks.process_group import Ranks
from workers.ranks.rank_process import end_process

ROOT = Path(__file__).resolve().parent.parent
# eps far above rounding: with 1e-8, near-zero gradients turn rounding into steps of full size.
OPTIMIZER = spec.Optimizer(learning_rate=2e-3, eps=1e-6, weight_decay=0.1)
# Rules that ranks can share; these leave biases and norms out of the decay.
OPTIMIZERS = {
    "adamw": OPTIMIZER,
    "sgd": spec.Optimizer(rule="sgd", learning_rate=0.2, weight_decay=0.1, decay_all=False),
    "lion": spec.Optimizer(rule="lion", learning_rate=1e-3, weight_decay=0.1, decay_all=False),
    "adabelief": own_optimizer("adabelief", {"eps": 1e-6}, learning_rate=2e-3, weight_decay=0.1),
}
CONTROLS = {
    "standard": spec.Standard(),
    "layer_clip": spec.LayerClip(max_norm=0.05),
    "equal_step_mean": spec.EqualStep(),
    "equal_step_median": spec.EqualStep(target="median"),
    "equal_step_fixed": spec.EqualStep(target=0.003),
    "equal_step_matrix": spec.EqualStep(target="budget", unit="matrix"),
    "layer_rates": spec.LayerRates(rates=(0.3, 0.2, 0.6, 0.4, 0.1), scope="all"),
    "global_clip": spec.Standard(),
}
# What is learned of gradients before the first step.
LEARNED = {"layer_rates_rgn": spec.LayerRates(rates="rgn")}
BATCH, LENGTH, VOCABULARY = 4, 12, 400
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Cell:
    """One entry of the table; ``ranks`` is that of the processes it runs in."""

    control: str = "standard"
    stage: int = 0
    accumulation: int = 1
    family: str = "gpt_neox"
    precision: str = "fp32"
    offload: str = "none"
    checkpoint: bool = False
    steps: int = 5
    rule: str = "adamw"
    # Of an adapter, which is trained then in place of the model.
    lora_rank: int = 0
    # Whether ranks step by the kernel, which is for larger models otherwise.
    kernel: bool = False
    # Steps from one record to the next; the last has one.
    record_every: int = 1

    @property
    def name(self):
        return "-".join(str(value) for value in asdict(self).values())


def build(family, lora_rank=0):
    """Return the objective and the model of a cell, the same in every process."""
    masked = family in ("bert", "roberta", "albert")
    source = spec.StandinModel(
        standin=family,
        layers=3,
        width=32,
        vocabulary=VOCABULARY,
        pretrain_steps=1,
        pretraining="mlm" if masked else "clm",
        digest="0" * 64,
    )
    torch.manual_seed(0)
    auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    tokenizer = build_tokenizer(source)
    language_model = auto.from_config(build_config(source, tokenizer))
    data = spec.BuiltinData(builtin="python-docs", digest="0" * 64)
    mask = {"mask_probability": 0.15} if masked else {}
    objective = build_objective(spec.Objective(kind=source.pretraining, data=data, **mask))
    facts = ModelFacts(family, "", "", 3, 32, 0)
    pretrained = PretrainedModel(language_model, tokenizer, facts)
    if lora_rank:
        add_lora(spec.Lora(rank=lora_rank), 0, family, pretrained)
    return objective, objective.build_model(pretrained), pretrained


def batch_of(family, step):
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=generator)
    if family not in ("bert", "roberta", "albert"):
        return {"input_ids": ids}
    masked = torch.rand(ids.shape, generator=generator) < 0.3
    return {"input_ids": ids, "labels": torch.where(masked, ids, IGNORED)}


def forget(model):
    """Leave a model's modules without their content, as a rank has them that reads no weights."""
    for parameter in model.parameters():
        empty = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        torch.utils.swap_tensors(parameter, empty)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to("meta")


def prepare(cell, engine_name, ranks=None, device=CPU):
    """Return the objective, the engine and the pretrained model of a cell."""
    objective, model, pretrained = build(cell.family, cell.lora_rank)
    sample = batch_of(cell.family, 0)
    groups = find_layer_groups(model, lambda: objective.loss_sum(model, sample), pretrained.stacks)
    if engine_name != "plain" and not ranks.leads:
        forget(model)
    control = build_control((CONTROLS | LEARNED)[cell.control])
    control.prepare(groups, pretrained.stacks)
    clip = {"max_grad_norm": 0.3} if cell.control == "global_clip" else {}
    optimizer = OPTIMIZERS[cell.rule].model_copy(update=clip)
    if engine_name == "plain":
        model.to(device)
        return objective, PlainEngine(model, groups, control, optimizer, cell.precision), pretrained
    from workers.engines.deepspeed import DeepSpeedEngine

    execution = spec.Execution(
        engine="deepspeed",
        processes=ranks.size,
        zero_stage=cell.stage,
        offload=cell.offload,
        checkpoint_activations=cell.checkpoint,
    )
    engine = DeepSpeedEngine(
        model,
        pretrained.backbone,
        groups,
        control,
        optimizer,
        cell.precision,
        execution,
        ranks,
        device,
    )
    return objective, engine, pretrained


def advance(cell, objective, engine, steps):
    """Train over ``steps``; return the record of the last."""
    micro = BATCH // engine.ranks // cell.accumulation
    record = None
    for step in steps:
        objective.accumulate(engine, batch_of(cell.family, step), micro)
        due = (step + 1) % cell.record_every == 0
        rate = OPTIMIZERS[cell.rule].learning_rate * (1 - 0.1 * step)
        record = engine.step(rate, record=due)
        assert (record is None) != due
    return record


def weights(engine):
    """Return every float32 weight, in the order of groups and parameters."""
    layers = [engine.layer(i, "weights", CPU) for i in range(len(engine.groups))]
    return torch.cat([layer[k].flatten() for layer in layers for k in sorted(layer)])


def run_cell(cell, engine_name, ranks=None):
    """Return the weights after the cell's steps, and the update ratio of each block."""
    objective, engine, _ = prepare(cell, engine_name, ranks)
    micro = BATCH // engine.ranks // cell.accumulation

    def accumulate(step):
        objective.accumulate(engine, batch_of(cell.family, step), micro)

    show_batches(engine.optimizer.control, engine, accumulate)
    record = advance(cell, objective, engine, range(cell.steps))
    ratios = [
        update / weight
        for update, weight, group in zip(
            record.update_norms, record.weight_norms, engine.groups, strict=True
        )
        if group.kind == "block"
    ]
    return {"weights": weights(engine), "ratios": torch.tensor(ratios, dtype=torch.float64)}


def in_ranks(script, arguments, ranks, timeout=300, fresh=False):
    """Run ``script`` in rank processes on this machine; fail with the output if one failed.

    They are forked from a process that has imported what they need, unless they must be ``fresh``:
    what is measured of a process's memory.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    environments = [{**shared, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(ranks)]
    with tempfile.NamedTemporaryFile() as log:
        carry_out = run_fresh if fresh else run_forked
        codes = carry_out(str(script), list(arguments), environments, log.name, timeout)
        assert not any(codes), (codes, Path(log.name).read_text(errors="replace")[-4000:])


def deepspeed_cells(cells, ranks):
    """Return the results of cells by name, all run in one set of rank processes."""
    with tempfile.TemporaryDirectory() as folder:
        asked, result = Path(folder, "cells.json"), Path(folder, "result.safetensors")
        asked.write_text(json.dumps([asdict(cell) for cell in cells]))
        in_ranks(__file__, [str(asked), str(result)], ranks)
        tensors = load_file(result)
    return {
        cell.name: {key: tensors[f"{cell.name}/{key}"] for key in ("weights", "ratios")}
        for cell in cells
    }


def main():
    torch.set_num_threads(1)
    ranks = Ranks.from_environment()
    found, kernel_from = {}, choosing.KERNEL_FROM
    for entry in json.loads(Path(sys.argv[1]).read_text()):
        cell = Cell(**entry)
        choosing.KERNEL_FROM = 0 if cell.kernel else kernel_from
        for key, value in run_cell(cell, "deepspeed", ranks).items():
            found[f"{cell.name}/{key}"] = value.contiguous()
    if ranks.leads:
        save_file(found, sys.argv[2])


if __name__ == "__main__":
    main()
    end_process()
