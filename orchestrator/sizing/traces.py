"""Traces of steps by what decides them: shipped, kept in the node's cache, or made now.

A trace is of one size of micro-batch; what lies between two of them is on the line through both.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from orchestrator.sizing.tracer import ROOT, active_tracer
from sweeps.errors import UserError
from sweeps.files.whole_files import read_if_readable, write_json
from sweeps.node_cache import node_cache
from sweeps.plugins.opened import bundles_of
from sweeps.sources.model_folder import read_config
from sweeps.spec import All, Execution, FolderModel, RunSpec, Standard, content_id

EngineName = Literal["plain", "deepspeed"]
# What the library's sweeps need, so that a plan of them waits for nothing.
SHIPPED = Path(__file__).with_name("traces.json")
PACKAGES = ("torch", "transformers")
# The smaller of two micro-batches: with one sequence some models take other ways.
FEW = 2

_known: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Footprint:
    """What a run's step takes by the size of its micro-batch: traces as of ``workers.footprint``,
    by how many sequences they are of."""

    traces: dict[int, dict[str, Any]]

    @property
    def any(self) -> dict[str, Any]:
        """What every trace has alike: parameters, layers, width, groups."""
        return next(iter(self.traces.values()))

    def number(self, name: str, rows: int) -> float:
        """Return a number of a trace for a micro-batch of so many sequences."""
        few, many = min(self.traces), max(self.traces)
        if rows in self.traces:
            return float(self.traces[rows][name])
        at = (rows - few) / (many - few) if many > few else 0.0
        low, high = self.traces[few][name], self.traces[many][name]
        return max(0.0, low + at * (high - low)) if many > few else float(high)

    def kinds(self, name: str, rows: int) -> dict[str, float]:
        """Return the bytes of each kind at a moment of a trace, likewise."""
        found = {}
        for kind in sorted({kind for trace in self.traces.values() for kind in trace[name]}):
            each = Footprint({n: {kind: t[name].get(kind, 0)} for n, t in self.traces.items()})
            found[kind] = each.number(kind, rows)
        return found


def footprint_of(
    run: RunSpec, engine: EngineName, checkpointing: bool, rows: int
) -> Footprint | None:
    """Return the footprint of a run's micro-batches of ``rows`` sequences, under an engine; None
    where it is not known, and cannot be.

    Within ``tracing`` what is not known is traced. Raises UserError where the run cannot be
    carried out so.
    """
    least = 2 if run.objective.kind == "contrastive" else 1
    exact = run.execution.micro_batch_size
    ends = {min(FEW, run.batch_size), run.batch_size}
    sizes = {max(least, rows)} if rows in (run.batch_size, exact) else ends
    found: dict[int, dict[str, Any]] = {}
    for size in sorted(sizes, reverse=True):
        answer = _answer(asked(run, size, engine, checkpointing))
        if "refused" in answer:
            raise UserError(answer["refused"])
        if "traced" not in answer:
            return None
        found[size] = answer["traced"]
    return Footprint(found)


def why_unknown(run: RunSpec) -> str | None:
    """Return why a run could not be traced, where that was tried."""
    for engine in ("plain", "deepspeed"):
        answer = _known.get(key_of(asked(run, run.batch_size, engine, False)), {})
        if "unknown" in answer:
            return str(answer["unknown"])
    return None


def size_of(run: RunSpec) -> dict[str, Any] | None:
    """Return ``parameters``, ``layers`` and ``width`` of a run's model, from its configuration.

    Raises UserError where the configuration makes no model.
    """
    traced = stored_trace(run)
    if traced is not None:
        return traced
    ask = asked(run, run.batch_size, "plain", False)
    key = f"size {key_of(ask)}"
    tracer = active_tracer()
    if key not in _known and tracer is not None:
        request = _request(ask, only="size")
        _known[key] = tracer.ask(request, f"reading the configuration of {run.model.name} …")
    answer = _known.get(key, {})
    if "refused" in answer:
        raise UserError(answer["refused"])
    return answer.get("size")


def require_usable(run: RunSpec) -> None:
    """Raise UserError where the folder of a run's model cannot be loaded, or gives too few rows of
    the probe's text, as far as files tell; within ``tracing`` this is asked, once for each folder,
    objective and probe."""
    source = run.model.source
    if not isinstance(source, FolderModel):
        return
    objective = {k: v for k, v in run.objective.identity().items() if k != "data"}
    decides = [source.identity(), run.model.name, objective, run.probe.identity()]
    key = f"usable {content_id(decides, 24)}"
    kept = key not in _known and read_if_readable(_place(key))
    tracer = active_tracer()
    if kept:
        _known[key] = kept
    elif key not in _known and tracer is not None:
        request = _request(asked(run, run.batch_size, "plain", False), only="usable")
        _known[key] = tracer.ask(request, f"reading the folder of {run.model.name} …")
        if "usable" in _known[key]:
            _keep(key, _known[key])
    if "refused" in _known.get(key, {}):
        raise UserError(_known[key]["refused"])


def stored_trace(run: RunSpec) -> dict[str, Any] | None:
    """Return a trace of a run's whole batch at once that was made before, under either engine."""
    for engine in ("plain", "deepspeed"):
        traced = _stored(key_of(asked(run, run.batch_size, engine, False)))
        if traced is not None:
            return traced
    return None


# ---------------------------------------------------------------------------------------- storage
def asked(run: RunSpec, rows: int, engine: EngineName, checkpointing: bool) -> RunSpec:
    """Return the run whose one step is traced: a batch of so many sequences, at once, on one rank,
    without what changes no memory."""
    execution = Execution(
        engine=engine,
        checkpoint_activations=checkpointing,
        zero_stage=2 if engine == "deepspeed" else None,
    )
    update: dict[str, Any] = {
        "batch_size": rows,
        "control": Standard(),
        "selection": All(),
        "seed": 0,
        "execution": execution.settled(),
    }
    if run.probe.metrics:
        update["probe"] = run.probe.model_copy(update={"metrics": ()})
    return run.model_copy(update=update)


def _request(ask: RunSpec, **more: Any) -> dict[str, Any]:
    """Return what a tracer is asked of a run, with the user's own code that it needs."""
    code = [bundle.as_text() for bundle in bundles_of(ask)]
    return {"run": ask.model_dump_json(), **more, **({"code": code} if code else {})}


def key_of(ask: RunSpec) -> str:
    """Return what decides a trace, as one name."""
    source: dict[str, Any] = ask.model.source.identity()
    if isinstance(ask.model.source, FolderModel):
        config = read_config(Path(ask.model.source.folder))
        code = source["digest"] if ask.model.source.trust_remote_code else ""
        source = {**source, "digest": code, "config": config}
    decides: dict[str, Any] = {
        "model": source,
        "objective": {k: v for k, v in ask.objective.identity().items() if k != "data"},
        "precision": ask.precision,
        "batch": [ask.batch_size, ask.sequence_length],
        "engine": ask.execution.engine,
        "checkpointing": ask.execution.checkpoint_activations,
        "clips": ask.optimizer.max_grad_norm is not None,
        "probe": {k: v for k, v in ask.probe.identity().items() if k not in ("data", "seed")},
    }
    # As in an identity: what is as it always was has no word, so no trace of before is lost.
    if adapter := ask.identity().get("adapter"):
        decides["adapter"] = adapter
    if ask.dropout:
        decides["dropout"] = True
    if ask.optimizer.rule != "adamw" and ask.execution.engine == "plain":
        decides["optimizer"] = f"{ask.optimizer.rule} {ask.optimizer.kept}"
        if ask.optimizer.own is not None:
            decides["optimizer"] = ask.optimizer.own.identity()
    return content_id(decides, 24)


def alike(run: RunSpec) -> str:
    """Return what is the same of runs whose steps take the same memory and time."""
    return run.model_copy(update={"optimizer": run.optimizer.for_memory()}).model_dump_json(
        exclude={"seed", "control"}
    )


def _answer(ask: RunSpec) -> dict[str, Any]:
    key = key_of(ask)
    stored = _stored(key)
    if stored is not None:
        return {"traced": stored}
    tracer = active_tracer()
    if key not in _known and tracer is not None:
        how = "DeepSpeed" if ask.execution.engine == "deepspeed" else "plain"
        again = ", checkpointing" if ask.execution.checkpoint_activations else ""
        what = (
            f"tracing a step of {ask.model.name}: {ask.objective.label}, {ask.batch_size} ×"
            f" {ask.sequence_length} tokens, {how}{again} …"
        )
        answer = tracer.ask(_request(ask), what)
        _known[key] = answer
        if "traced" in answer:
            _keep(key, answer["traced"])
    return _known.get(key, {})


def _stored(key: str) -> dict[str, Any] | None:
    """Return a trace that was made before: in this process, for the library, or on this node."""
    if "traced" in _known.get(key, {}):
        return dict(_known[key]["traced"])
    found = shipped().get(key) or read_if_readable(_place(key))
    if found is not None:
        _known[key] = {"traced": found}
    return found


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """Return the traces that come with the code, by key."""
    return dict(json.loads(SHIPPED.read_text(encoding="utf-8"))["traces"])


def _keep(key: str, traced: dict[str, Any]) -> None:
    place = _place(key)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, traced)
    except OSError:
        return  # a cache that cannot be written costs time, not a plan


def _place(key: str) -> Path:
    return node_cache() / "footprints" / f"{content_id([key, _made_with()], 24)}.json"


@cache
def _made_with() -> list[str]:
    """Return what a trace depends on beside the run: the versions of packages, and our code."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    code = hashlib.sha256()
    for path in sorted((ROOT / "workers").rglob("*.py")):
        code.update(path.read_bytes())
    return [*found, code.hexdigest()]
