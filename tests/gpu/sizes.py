"""Memory, and time of a step, of the catalogue's models at paper.yaml's settings.

Memory is that of some training steps and of a probe, as the allocator saw it, with what the CUDA
context takes; beside it stands what ``orchestrator.sizing`` plans for the same run.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from orchestrator.sizing import memory as sizing
from orchestrator.sizing.choice import choose, execution_text
from orchestrator.sizing.memory import Memory, estimate_memory
from sweeps.errors import UserError
from sweeps.sources.catalog import CATALOG
from sweeps.spec import PROBE_SEQUENCES, Control, EqualStep, Execution, LayerClip, RunSpec, Standard
from tests.benchmarks.large_model import cloned, rescale
from tests.gpu.catalogue import (
    BEYOND,
    LITTLE,
    architecture,
    language_model,
    paper_run,
    paper_runs,
    shape_of,
)
from tests.gpu.checks import Place, Seen, broken, skipped
from tests.gpu.device import GIB, matmul_rate, seconds_of
from workers.controls.layer_groups import LayerGroup, find_layer_groups
from workers.controls.registry import build_control
from workers.depth.stacks import in_twin
from workers.engines.engine import Batch, Engine
from workers.engines.plain import PlainEngine
from workers.engines.registry import build_engine
from workers.footprint.fake_numbers import fake_numbers
from workers.models.pretrained import PretrainedModel, measure_facts
from workers.objectives.language_modelling import IGNORED
from workers.objectives.objective import TrainingObjective
from workers.objectives.registry import build_objective
from workers.probes.capture import capture
from workers.probes.rows import ProbeRows
from workers.probes.similarity import Reference, compare
from workers.ranks.process_group import ALONE

RATE = 2e-5
STEPS = 3
# From so many parameters on a model is measured in a process of its own.
LARGE = 1_000_000_000
# A plan that is smaller than what is used is a run that dies; one that is larger wastes GPUs.
MOST_PLANNED = 1.35
# Of a GPU that is nearly full the allocator keeps what there is, and gives it back when asked.
NEARLY_ALL = 0.97
CONTROLS: dict[str, Control] = {
    "standard": Standard(),
    "layer_clip": LayerClip(max_norm=1.0),
    "equal_step fixed": EqualStep(target=1e-4),
    "equal_step mean": EqualStep(),
}


@dataclass(frozen=True)
class Training:
    """A model under training, and a batch of random tokens."""

    run: RunSpec
    objective: TrainingObjective
    pretrained: PretrainedModel
    groups: tuple[LayerGroup, ...]
    engine: Engine
    batch: Batch

    def step(self) -> None:
        self.objective.accumulate(self.engine, self.batch, self.run.micro_batch_size)
        self.engine.step(RATE)


def build(name: str, run: RunSpec, device: torch.device) -> Training:
    """Build what trains a model of random weights, as ``workers.assembly`` does; on a CPU one of
    its family, in little."""
    torch.manual_seed(0)
    objective = build_objective(run.objective)
    shape = None
    if device.type == "cpu":
        shape, run = LITTLE, run.model_copy(update={"batch_size": 4, "sequence_length": 16})
    drawn = language_model(name, device, shape).to("cpu")
    torch.cuda.empty_cache()
    pretrained = PretrainedModel(drawn, None, measure_facts(drawn))
    model = objective.build_model(pretrained)
    batch = tokens(run, architecture(name, shape).vocab_size)
    sample = {key: value[:2, :16] for key, value in batch.items()}
    groups = find_layer_groups(model, lambda: objective.loss_sum(model, sample), pretrained.stacks)
    engine = build_engine(run, model, pretrained, groups, build_control(run.control), ALONE, device)
    return Training(run, objective, pretrained, groups, engine, batch)


def tokens(run: RunSpec, vocabulary: int) -> Batch:
    """Return a batch of random tokens, of which an encoder predicts some."""
    generator = torch.Generator().manual_seed(0)
    shape = (run.batch_size, run.sequence_length)
    ids = torch.randint(5, vocabulary, shape, generator=generator)
    if run.objective.kind != "mlm":
        return {"input_ids": ids}
    masked = torch.rand(shape, generator=generator) < 0.15
    return {"input_ids": ids, "labels": torch.where(masked, ids, IGNORED)}


def probe_rows(run: RunSpec, width: int, vocabulary: int) -> ProbeRows:
    """Return a probe of random tokens, as large as the run's."""
    wanted = run.probe.rows_for(width)
    length = run.probe.sequence_length
    each = min(length - 1, max(1, wanted // PROBE_SEQUENCES))
    sequences = -(-wanted // each)
    ids = torch.randint(5, vocabulary, (sequences, length), generator=torch.Generator())
    places = torch.cartesian_prod(torch.arange(sequences), torch.arange(1, each + 1))[:wanted]
    return ProbeRows(ids, places[:, 0].contiguous(), places[:, 1].contiguous())


# ----------------------------------------------------------------------------------------- memory
def memory(place: Place, which: str) -> Iterator[Seen]:
    """Measure one model, or every small one of the sweep, one after another."""
    if place.small:
        wrong = [name for name in CATALOG if not has_its_shape(name)]
        yield Seen(
            f"{len(CATALOG)} models have the catalogue's parameters, blocks and width"
            + "".join(f"; not {name}" for name in wrong),
            not wrong,
        )
        return
    names = [name for name in paper_runs() if shape_of(name).parameters < LARGE]
    for name in names if which == "small" else [which]:
        try:
            yield memory_of(name, place.device)
        except Exception as error:
            yield broken(name, error)
        gc.collect()
        torch.cuda.empty_cache()


def has_its_shape(name: str) -> bool:
    """Return whether the model that is measured under a name is as large as the published one."""
    with fake_numbers():
        facts, shape = measure_facts(language_model(name, torch.device("cpu"))), shape_of(name)
    found = (facts.parameters, facts.layers, facts.width)
    return found == (shape.parameters, shape.layers, shape.width)


def planned(name: str, device: torch.device) -> tuple[RunSpec, Memory]:
    """Return the run of a model as the plan carries it out on this GPU, and its memory."""
    run, shape = paper_run(name), shape_of(name)
    size = float(torch.cuda.get_device_properties(device).total_memory)
    if name in BEYOND:
        said = Execution(engine="deepspeed", zero_stage=2, micro_batch_size=run.batch_size)
        execution = said.settled()
    else:
        choice = choose(run, size, 1)
        assert choice is not None
        execution = choice.execution
    run = run.model_copy(update={"execution": execution})
    # A model that is in no catalogue has a shape here, and no configuration.
    traced = None if name in BEYOND else sizing.memory_of(run, execution)
    return run, traced or estimate_memory(run, shape, execution)


def memory_of(name: str, device: torch.device) -> Seen:
    """Take some steps and a probe, and compare the peak with the plan."""
    try:
        run, plan = planned(name, device)
    except UserError as error:
        return skipped(" ".join(str(error).split())[:200])
    available = _host_bytes()
    if plan.host > 0.9 * available:
        return skipped(
            f"{name}, {execution_text(run.execution)}: plans {plan.host / GIB:.0f} GiB of host"
            f" memory, {available / GIB:.0f} are there"
        )
    training = build(name, run, device)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step = seconds_of(training.step, device, STEPS - 1, warm=1)
    probe_once(training, device)
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    used = reserved + context
    least = allocated + context if used > NEARLY_ALL * total else used
    return Seen(
        f"{name}: planned {plan.total / GIB:.1f} GiB, allocated {allocated / GIB:.1f}, of the GPU"
        f" {used / GIB:.1f}; used/planned {used / plan.total:.2f}; {execution_text(run.execution)};"
        f" a step {1e3 * step:.0f} ms",
        least <= plan.total <= MOST_PLANNED * used,
        {"model": name, "planned": plan.total, "allocated": allocated, "used": used,
         "context": context, "step": step, "terms": plan.terms,
         "zero_stage": run.execution.zero_stage},
    )  # fmt: skip


def probe_once(training: Training, device: torch.device) -> None:
    """Capture the probe's states, and compare one layer with itself."""
    pretrained = training.pretrained
    backbone = training.engine.in_float32(pretrained.backbone)
    rows = probe_rows(training.run, pretrained.facts.width, 500)
    stacks = in_twin(pretrained.stacks, pretrained.backbone, backbone)
    states = capture(backbone, stacks, rows, device)
    last = states[-1].to(device)
    compare(Reference.of(last), last)


def _host_bytes() -> float:
    """Return the host memory that is free for new processes, in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return float(line.split()[1]) * 1024
    return 0.0


# ------------------------------------------------------------------------------------------ speed
def speed(place: Place, name: str) -> Iterator[Seen]:
    """Time a whole step under each control, the obvious way to equal steps, and torch's AdamW."""
    device = place.device
    run = paper_run(name).model_copy(update={"execution": Execution(engine="plain").settled()})
    training = build(name, run, device)
    run, facts = training.run, training.pretrained.facts
    taken = {"standard": seconds_of(training.step, device, 5)}
    rate = run.batch_size * run.sequence_length / taken["standard"]
    used = 6.0 * facts.parameters * rate / matmul_rate(device)
    yield Seen(
        f"{name}, batch {run.batch_size}×{run.sequence_length}, bf16: {rate:,.0f} tokens/s,"
        f" {1e3 * taken['standard']:.0f} ms a step, {used:.0%} of the measured product rate",
        None,
        {"tokens_per_second": rate, "mfu": used},
    )
    for label, control in CONTROLS.items():
        if label not in taken:
            training = replace(training, engine=engine_of(training, control))
            gc.collect()
            taken[label] = seconds_of(training.step, device, 5)
    training = replace(training, engine=engine_of(training, Standard()))
    gc.collect()
    # How far two measurements of the same are apart.
    taken["standard again"] = seconds_of(training.step, device, 5)
    taken["clone and rescale"] = seconds_of(lambda: obvious_step(training), device, 5)
    taken["torch's fused AdamW"] = seconds_of(step_by_torch(training), device, 5)
    listed = ", ".join(
        f"{label} {seconds / taken['standard'] - 1:+.1%}"
        for label, seconds in taken.items()
        if label != "standard"
    )
    yield Seen(f"{name}, a whole step against standard: {listed}", None, taken)


def engine_of(training: Training, control: Control) -> PlainEngine:
    """Return an engine of the same model, with moments of its own."""
    run, model = training.run, training.engine.model
    return PlainEngine(model, training.groups, build_control(control), run.optimizer, run.precision)


def obvious_step(training: Training) -> None:
    """Equal the steps the usual way: clone, step, rescale what moved."""
    training.objective.accumulate(training.engine, training.batch, training.run.micro_batch_size)
    before = cloned(training.engine)
    training.engine.step(RATE)
    rescale(training.engine, before)


def step_by_torch(training: Training) -> Callable[[], None]:
    """Return a step of the same model by torch's own optimizer, which measures nothing."""
    settings = training.run.optimizer
    fused = torch.optim.AdamW(
        training.engine.model.parameters(),
        lr=RATE,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )

    def step() -> None:
        size = training.run.micro_batch_size
        training.objective.accumulate(training.engine, training.batch, size)
        fused.step()
        fused.zero_grad(set_to_none=True)

    return step
