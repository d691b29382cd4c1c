"""A sweep at a glance, before it runs: its runs in a table, and what they need."""

from __future__ import annotations

from collections import Counter

from orchestrator.sizing.cost import (
    estimate,
    largest_checkpoint,
    notice_seconds,
    probed_tokens,
    width_of,
)
from orchestrator.sizing.estimates import ASSUMED_FLOPS
from sweeps.declaration.expand import Sweep
from sweeps.spec import ComparedModel, HubData, HubModel, Judge, RunSpec, counted
from workers.checkpoints.cadence import notice_needs_in_words

# Of a model so narrow that a row more or less shows.
MINIMUM_WIDTH = 16


def plan_table(sweep: Sweep) -> list[str]:
    """Return lines of at most 80 columns: a row a model and objective, a column a control."""
    controls = list(dict.fromkeys(control_name(run) for run in sweep.runs))
    counts: Counter[tuple[str, str, str]] = Counter()
    parameters: dict[str, str] = {}
    for run in sweep.runs:
        counts[run.model.name, run.objective.label, control_name(run)] += 1
        parameters[run.model.name] = count_text(estimate(run).parameters)
    widths = [max(8, len(control)) for control in controls]
    head = "  ".join(f"{control:>{w}}" for control, w in zip(controls, widths, strict=True))
    lines = [f"{'model':<20} {'params':>6}  {'objective':<15}{head}"]
    previous = None
    for model, objective in dict.fromkeys((m, o) for m, o, _ in counts):
        cells = "  ".join(
            f"{counts[model, objective, control] or '·':>{w}}"
            for control, w in zip(controls, widths, strict=True)
        )
        shown = (model, parameters[model]) if model != previous else ("", "")
        lines.append(f"{shown[0]:<20} {shown[1]:>6}  {objective:<15}{cells}")
        previous = model
    total = [sum(n for key, n in counts.items() if key[2] == control) for control in controls]
    cells = "  ".join(f"{n:>{w}}" for n, w in zip(total, widths, strict=True))
    return [*lines, f"{'total':<20} {len(sweep.runs):>6}  {'':<15}{cells}"]


def _beside(run: RunSpec) -> tuple[ComparedModel | Judge, ...]:
    """Return the models that a run reads beside the one it trains."""
    return (*run.model.compare_to, *run.judges)


def needs_lines(sweep: Sweep) -> list[str]:
    """Return lines that say what all runs together need."""
    costs = [estimate(run) for run in sweep.runs]
    flops = sum(cost.flops for cost in costs)
    state = max((cost.state_bytes or 0) for cost in costs)
    largest = largest_checkpoint(sweep.runs)
    rows = sum(probed_tokens(run) * len(run.probe_steps) for run in sweep.runs)
    read = {
        one
        for run in sweep.runs
        for one in (run.model.source, *(other.source for other in _beside(run)))
    }
    models = {source.hub for source in read if isinstance(source, HubModel)}
    sources = [data for run in sweep.runs for data in run.datasets.values()]
    of_hub = [data for data in sources if isinstance(data, HubData)]
    datasets = {data.label for data in of_hub if not data.stream}
    streamed = {data.label for data in of_hub if data.stream}
    lines = [
        "needs",
        f"  compute    {flops:.2e} FLOPs: {_hours(flops / ASSUMED_FLOPS / 3600)} at 35 %"
        " of bf16 peak",
        f"  tokens     {sum(cost.tokens for cost in costs):,} trained on, {rows:,} read by probes",
        f"  memory     {_gib(state)} for weights, gradients and optimizer of the largest",
        *(f"  checkpoint {words}" for words in notice_needs_in_words(largest)),
        f"  notice     {notice_seconds(sweep.runs)} s for a pod or a Slurm job that is taken away",
        f"  downloads  {len(models)} models, {len(datasets)} datasets from the hub",
    ]
    if datasets:
        lines.append(f"             {', '.join(sorted(datasets))}")
    if streamed:
        lines.append(f"  streams    {', '.join(sorted(streamed))}")
    if sweep.to_measure:
        lines.append(f"  measures   {counted(sweep.to_measure)} (training-free)")
    return [*lines, *_said_of_steps(sweep), *_unequal_rows(sweep)]


def _said_of_steps(sweep: Sweep) -> list[str]:
    """Return what of the runs' steps is not seen in their settings."""
    dropped = sum(run.dropout for run in sweep.runs)
    fixed = sum(isinstance(getattr(run.control, "target", None), float) for run in sweep.runs)
    said = []
    if dropped:
        said += [
            f"  ! dropout of {dropped} runs: results depend on micro_batch_size and processes,",
            "    which are no part of a run's id: say both to have them again",
        ]
    if fixed:
        said += [
            f"  ! equal_step to a number in {fixed} runs: how far the controlled layers move",
            "    depends on neither learning rate nor schedule",
        ]
    return said


def _unequal_rows(sweep: Sweep) -> list[str]:
    """Return a warning where models of known width are probed with other rows a feature."""
    shares = set()
    for run in sweep.runs:
        width = width_of(run.model.source)
        if width is not None:
            shares.add(run.probe.rows_for(width) / width)
    # Rows are whole: a rounded-up half of one is no difference.
    if not shares or max(shares) - min(shares) <= 1 / MINIMUM_WIDTH:
        return []
    return [
        f"! probe rows are {min(shares):.2g} to {max(shares):.2g} a feature: slopes of models are"
        " compared at",
        "  equal ones; leave `rows` out of the probe, or give `rows_per_width`",
    ]


def control_name(run: RunSpec) -> str:
    """Return a control with its setting, as tables head it."""
    setting = run.control.setting
    name: str = run.control.kind
    return f"{name}({setting})" if setting and setting != "mean" else name


def count_text(number: int | None) -> str:
    """Return a parameter count for a person: 0.7M, 125M, 6.9B."""
    if number is None:
        return "?"
    if number >= 1_000_000_000:
        return f"{number / 1e9:.1f}B"
    return f"{number / 1e6:.0f}M" if number >= 10_000_000 else f"{number / 1e6:.1f}M"


def _hours(hours: float) -> str:
    """Return hours of a GPU, not 0.0 of a study that takes minutes."""
    return f"{hours:.1f} H100-hours" if hours >= 0.1 else "under 0.1 H100-hours"


def _gib(size: float) -> str:
    """Return bytes in GiB, of a small model in MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 0.1 * 2**30 else f"{size / 2**20:.1f} MiB"
