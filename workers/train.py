"""One run, from its specification to its rows in the store."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sweeps.attempts.attempt import Attempt, OnlookersAttempt
from sweeps.attempts.writer import OnlookersWriter, RunWriter
from sweeps.errors import UserError
from sweeps.files.whole_files import Place
from sweeps.plugins.opened import naming_own_code
from sweeps.spec import Keep, RunSpec, learning_rate
from sweeps.store.records import COMPLETE
from sweeps.store.run_folder import RunFolder
from sweeps.store.store import Status, Store
from workers.assembly import Assembly, accumulate, assemble, fetch
from workers.checkpoints.resuming import load_checkpoint
from workers.checkpoints.saving import Checkpoints, Due
from workers.controls.layer_groups import LayerGroup
from workers.engines.layer_step import LayerStep
from workers.evaluation.evaluations import Evaluations
from workers.probes.displacement import Moved
from workers.probes.measure import DepthProbe, Measured
from workers.progress import PREPARATION, Progress, logged
from workers.ranks.notice import Notice
from workers.ranks.peers import PEERS
from workers.ranks.process_group import ALONE, Ranks, connect
from workers.run_record import provenance, write_run_record


def train(
    run: RunSpec,
    store: Store,
    device: torch.device,
    ranks: Ranks = ALONE,
    notice: Notice | None = None,
) -> Iterator[Progress]:
    """Carry out ``run``, yielding after each step; its rows are in the store when this ends.

    With several ranks, each runs this loop: all compute, the first one writes. A ``notice`` that is
    given to any rank stops it after the step it is in, with a checkpoint; the status is then the
    notice's cause. The attempt's record says how it ended, also when the caller closes the
    generator (cancelled) or an exception leaves it (failed).
    """
    _require_training(run)
    folder, notice = store.run(run.run_id), notice or Notice()
    keep, share = run.execution.keep, run.execution.checkpoint_share
    if ranks.size > 1:
        fetch(run, store)
        connect(ranks, device)
    with _attempt(run, folder, ranks) as attempt:
        done = _ended_meanwhile(folder, ranks, keep)
        if done is not None:
            attempt.end("not needed")
            yield Progress(done["step"], run.steps, None, done["status"])
            return
        attempt.describe(**provenance(device))
        yield Progress(0, run.steps, None)
        parts = _assembled(run, store, device, ranks, attempt)
        objective, engine = parts.objective, parts.engine
        checkpoint = load_checkpoint(folder, engine, ranks)
        resumed = folder.step_of(checkpoint) if checkpoint else 0
        writer = _writer(run, folder, attempt, parts, checkpoint, device)
        scores = Evaluations(run, parts.evaluator, parts.refusals, writer, ranks, resumed)
        scores.begin()
        status: Status = "stopped" if scores.stopped else "finished"
        rate, probe, recorded = None, None, run.recorded_steps
        step, loss, stop = resumed, None, ranks.agreed_cause(notice, device)
        with Checkpoints(folder, engine, attempt, share, ranks, notice, keep) as checkpoints:
            while step < run.steps and not scores.stopped and not stop:
                step += 1
                rate = learning_rate(run.optimizer, step, run.steps)
                batch, total, rows = accumulate(run, objective, parts.batches, engine, step)
                loss = _loss(total, targets := objective.targets(batch))
                finite = math.isfinite(loss or 0.0)
                layers = engine.step(rate, record=step in recorded or not finite)  # its last, then
                finite = finite and _is_finite(layers) and scores.after(step)
                last = step == run.steps or scores.stopped
                probes = finite and (last or step in run.probe_steps)
                moved = parts.displacement.measure(engine) if probes else None
                writer.add("samples", step, rows)
                if layers is not None:
                    covered = None if recorded.all else recorded.covered(step)
                    writer.add("steps", step, [_step_row(loss, rate, targets, layers)])
                    writer.add("layers", step, _layer_rows(engine.groups, layers, covered, moved))
                if probes:
                    measured = _measured(parts.probe, step, last, writer, attempt)
                    probe = measured.summary(step) if ranks.leads else None
                    finite = ranks.agree(measured.finite)
                if not finite:
                    status = "diverged"
                    break
                status = "stopped" if scores.stopped else "finished"
                checkpoints.check()
                ended_part = writer.end_step(step, is_last=last)
                stop = None if last else ranks.agreed_cause(notice, device)
                due = _due(stop is not None, last, ended_part)
                checkpoints.after(step, writer, loss, due, scores.loss_at(step))
                if not stop:
                    yield Progress(step, run.steps, loss, None, resumed, rate, probe, scores.newest)
            if stop or (status in COMPLETE and keep != "none"):
                checkpoints.wait()
            else:
                checkpoints.drop()
        if not stop:
            writer.finish(status, step)
            if ranks.leads:
                folder.remove_unlisted(keep)
        attempt.end(how := stop or status)
        yield Progress(step, run.steps, loss, how, resumed, rate, probe, scores.newest)


def _assembled(
    run: RunSpec,
    store: Store,
    device: torch.device,
    ranks: Ranks,
    attempt: Attempt | OnlookersAttempt,
) -> Assembly:
    """Return what the loop needs; the log says how far it is where that takes long."""
    with PREPARATION.heard_by(logged(attempt.log)):
        return assemble(run, store, device, ranks)


@contextmanager
def _attempt(run: RunSpec, folder: RunFolder, ranks: Ranks) -> Iterator[Attempt | OnlookersAttempt]:
    """Surround an attempt; the first rank keeps the record, which says a rank that was lost."""
    attempt = Attempt(folder) if ranks.leads else OnlookersAttempt()
    lost = partial(attempt.end, "lost")
    with attempt, naming_own_code(run), PEERS.told(lost):
        yield attempt


def _ended_meanwhile(folder: RunFolder, ranks: Ranks, keep: Keep) -> dict[str, Any] | None:
    """Return the closing record where the attempt that was waited out has finished the run; a
    collective."""
    done: dict[str, Any] | None = ranks.agree(folder.done())
    if done is not None and ranks.leads:  # it may have been lost before it had put all away
        folder.remove_unlisted(keep)
    return done


def _due(stopped: bool, last: bool, ended_part: bool) -> Due | None:
    """Return why a state may be saved after a step."""
    if stopped:
        return "stopped"
    if last:
        return "last"
    return "part" if ended_part else None


def _require_training(run: RunSpec) -> None:
    """Raise UserError for a run whose weights were trained elsewhere."""
    if run.tuned is not None:
        raise UserError(
            f"run {run.run_id}: {run.objective.label} was not trained here; `depthsweep measure"
            f" --base … --tuned {run.tuned.place}` measures it again"
        )


def _writer(
    run: RunSpec,
    folder: RunFolder,
    attempt: Attempt | OnlookersAttempt,
    parts: Assembly,
    checkpoint: Place | None,
    device: torch.device,
) -> RunWriter | OnlookersWriter:
    """Return what writes this rank's rows after a checkpoint; the first one's go to the store."""
    if isinstance(attempt, OnlookersAttempt):
        return OnlookersWriter(run)
    # Between the lease and here lie a download and a tokenizing: others may own the run by now.
    attempt.require_ownership()
    write_run_record(folder, run, parts.facts, device)
    writer = RunWriter(run, folder, attempt)
    if checkpoint:
        writer.take_back(checkpoint)
    attempt.log("model ready", **parts.facts.as_record(), groups=len(parts.engine.groups))
    if parts.unreached:
        shown = _first_of(parts.unreached)
        attempt.log("left out of training: no loss reaches them", "warning", parameters=shown)
    if slow := parts.batches.taken_one_by_one:
        attempt.log(
            "selection: how these weights are used is not understood, so that each candidate costs"
            " a backward pass of its own for them",
            "warning",
            parameters=_first_of(slow),
        )
    if parts.tied_head:
        attempt.log(
            "freeze: head leaves out the final norm alone: the output matrix is the embedding's own"
            " (tied), and is trained unless embedding is frozen, too",
            "warning",
        )
    attempt.resumed_from(folder.step_of(checkpoint) if checkpoint else 0)
    return writer


def _first_of(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    said, more = ", ".join(names[:6]), len(names) - 6
    return f"{said}, and {more} more" if more > 0 else said


def _measured(
    probe: DepthProbe,
    step: int,
    last: bool,
    writer: RunWriter | OnlookersWriter,
    attempt: Attempt | OnlookersAttempt,
) -> Measured:
    """Take the probe of a step, put its rows away, and say what cannot be compared."""
    measured = probe.measure(step, jackknife=last)
    for table, rows in measured.by_table().items():
        writer.add(table, step, rows)
    for reason in measured.incomparable:
        attempt.log("a layer cannot be compared", "warning", step=step, reason=reason)
    return measured


def _loss(total: Tensor, targets: int) -> float | None:
    """Return the mean loss of a batch; of one with nothing to predict there is none, and 0 would be
    the best."""
    return float(total) if targets else None


def _is_finite(layers: LayerStep | None) -> bool:
    """Return whether a step was taken by gradients that are finite, as far as was measured."""
    return layers is None or math.isfinite(layers.total_gradient_norm)


def _step_row(loss: float | None, rate: float, targets: int, layers: LayerStep) -> dict[str, Any]:
    return {
        "loss": loss,
        "scheduled_learning_rate": rate,
        "grad_norm": layers.total_gradient_norm,
        "clip_coefficient": layers.clip_coefficient,
        "targets": targets,
    }


def _layer_rows(
    groups: Sequence[LayerGroup],
    layers: LayerStep,
    covered: int | None,
    moved: Sequence[Moved] | None,
) -> Iterator[dict[str, Any]]:
    for k, group in enumerate(groups):
        how_far = moved[k] if moved else Moved()
        yield {
            "layer": group.layer,
            "stack": group.stack,
            "group": group.kind,
            "block_class": group.block_class,
            "grad_norm": layers.gradient_norms[k],
            "weight_norm": layers.weight_norms[k],
            "update_norm": layers.update_norms[k],
            "coefficient": layers.coefficients[k],
            "steps_covered": covered,
            **asdict(how_far),
        }
