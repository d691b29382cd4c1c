"""What `depthsweep measure` measures, and the sweep of a store that it becomes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from sweeps.declaration.entries.sweep_spec import DataEntry, ModelEntry
from sweeps.declaration.expand import Sweep
from sweeps.declaration.sources import check_local, resolve_data, resolve_model
from sweeps.errors import UserError, closest
from sweeps.rows.local_rows import PLAIN_TEXT
from sweeps.sources.catalog import CATALOG, by_hub
from sweeps.sources.hub_ids import HubId
from sweeps.spec import (
    OBJECTIVE_DEFAULTS,
    HubModel,
    ModelSpec,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    Standard,
    Tuned,
)
from sweeps.store.store import Store

Say = Callable[[str], None]


def probe_on(file: str) -> Probe:
    """Return the probe on a file of texts; raise UserError where it is none."""
    if not Path(file).expanduser().exists():
        raise UserError(f"--probe {file}: no such file; give one of texts, such as a line each")
    try:
        data = resolve_data(DataEntry(file=file), ("text",), Path())
        check_local(data, PLAIN_TEXT)
    except UserError as error:
        raise UserError(f"--probe {file}: {error}") from None
    return Probe(data=data)


def measure_weights(what: Iterable[str], probe: Probe, store: Store, say: Say) -> list[RunSpec]:
    """Measure the weights that runs kept, all of a sweep or some by id, and return the runs that
    they are with that probe. Of a sweep's runs those without weights are passed over, and said."""
    from workers.ranks.process_group import ALONE
    from workers.weights.another_probe import measure_kept, on_another_probe
    from workers.weights.kept import kept_checkpoint

    found: dict[str, RunSpec] = {}
    store.identify()
    for run, single in _asked(what, store):
        other = on_another_probe(run, probe)
        if other.run_id == run.run_id:
            say(f"{run.run_id} {run.describe()}: was probed on that text itself")
            continue
        try:
            kept_checkpoint(store.run(run.run_id), run)
        except UserError as error:
            if single:
                raise
            say(f"passed over: {error}")
            continue
        measure_kept(run, other, store, ALONE.device())
        say(f"{run.run_id} {run.describe()}: {other.run_id}")
        found[other.run_id] = other
    if not found:
        raise UserError(f"nothing to measure: no run of {', '.join(what)} has kept its weights")
    return list(found.values())


def _asked(what: Iterable[str], store: Store) -> Iterable[tuple[RunSpec, bool]]:
    """Yield each run that is meant once, and whether it was named by its own id."""
    from workers.weights.kept import recorded_run

    names, seen = store.sweep_names(), set[str]()
    for one in what:
        single = one.partition("@")[0] not in names
        runs = [recorded_run(store.known(one))] if single else store.load_sweep(one).runs
        for run in runs:
            if run.run_id not in seen:
                seen.add(run.run_id)
                yield run, single


def measure_checkpoints(base: str, tuned: str, probe: Probe, store: Store, say: Say) -> RunSpec:
    """Measure how one checkpoint differs from another, and return the run that stands for it."""
    from workers.ranks.process_group import ALONE
    from workers.weights.two_checkpoints import measure_two

    model, became = _model("--base", base), _model("--tuned", tuned)
    kind, source = model.source.pretraining, became.source
    content = source.revision if isinstance(source, HubModel) else source.digest
    place = source.hub if isinstance(source, HubModel) else str(getattr(source, "folder", tuned))
    run = RunSpec(
        model=model,
        # What made it what it is nobody knows here: it is called by its outcome.
        objective=Objective(
            name=became.name, kind=kind, data=probe.data, **OBJECTIVE_DEFAULTS[kind]
        ),
        control=Standard(),
        seed=0,
        steps=1,
        batch_size=1,
        sequence_length=probe.sequence_length,
        optimizer=Optimizer(learning_rate=1.0),
        probe=probe,
        tuned=Tuned(digest=content, place=place),
    )
    store.identify()
    measure_two(run, became, store, ALONE.device())
    say(f"{model.name} to {became.name}: {run.run_id}")
    return run


def _model(option: str, said: str) -> ModelSpec:
    """Return the model that is a folder, ``owner/name@commit`` of the hub, or of the catalogue."""
    if Path(said).expanduser().is_dir():
        name, entry = Path(said).expanduser().resolve().name, ModelEntry(folder=said)
    elif (found := HubId.of(said)) is not None and found.config is None:
        revision = found.revision or None
        name, entry = found.hub.rpartition("/")[2], ModelEntry(hub=found.hub, revision=revision)
    elif by_hub(said):
        name, entry = said.rpartition("/")[2], ModelEntry(hub=said)
    elif said in CATALOG:
        name, entry = said, None
    else:
        hint = closest(said, list(CATALOG)) if re.fullmatch(r"[\w.-]+", said) else ""
        raise UserError(
            f"{option} {said}: no such folder, no model of the catalogue, no owner/name@commit of"
            f" the hub{hint and f'; {hint}'}"
        )
    try:
        known = {name: entry} if entry else {}
        return ModelSpec(name=name, source=resolve_model(name, known, Path()))
    except UserError as error:
        raise UserError(f"{option} {said}: {error}") from None


def recorded_as(
    name: str | None, of: str, probe_file: str, runs: Iterable[RunSpec], store: Store
) -> str:
    """Record runs that were measured as a sweep, with those that it had before; return its name,
    which says what was measured on which text where none is given."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(probe_file).name.split(".")[0]).strip("-.")
    name = name or f"{of}-on-{stem or 'text'}"[:80]
    there = list(store.load_sweep(name).runs) if name in store.sweep_names() else []
    every = {run.run_id: run for run in (*there, *runs)}
    text = f"# Measured by `depthsweep measure` on {probe_file}; nothing to run.\n"
    sweep = Sweep(name, f"{of} on {probe_file}", text, tuple(every.values()), measurements=())
    store.save_sweep(sweep)
    return name
