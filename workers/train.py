"""One run, from its specification to its rows in the store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from sweeps.spec import RunSpec, learning_rate
from sweeps.store.attempt import Attempt
from sweeps.store.store import Status, Store
from sweeps.store.writer import RunWriter
from workers.checkpoint import load_checkpoint, save_checkpoint
from workers.controls.layer_groups import LayerGroup, find_blocks, find_layer_groups
from workers.data.token_cache import objective_arrays
from workers.engines.layer_adamw import LayerStep
from workers.engines.registry import build_engine
from workers.loading import load_model
from workers.models.fit import require_fit, require_known_tokens
from workers.objectives.objective import Batch
from workers.objectives.registry import build_objective
from workers.probes.capture import choose_rows, reference_states
from workers.probes.measure import DepthProbe
from workers.progress import Progress
from workers.ranks.notice import Notice
from workers.ranks.process_group import ALONE, OnlookersAttempt, OnlookersWriter, Ranks, connect
from workers.run_record import write_run_record


def train(
    run: RunSpec,
    store: Store,
    device: torch.device,
    ranks: Ranks = ALONE,
    notice: Notice | None = None,
) -> Iterator[Progress]:
    """Carry out ``run``, yielding after each step; its rows are in the store when this ends.

    With several ranks, each runs this loop: all compute, the first one writes.

    A ``notice`` that is given to any rank stops it after the step it is in, with a checkpoint that
    has everything up to there; the status is then the notice's cause.

    The attempt's record says how it ended, also when the caller closes the generator (cancelled)
    or an exception leaves it (failed, with the traceback).
    """
    folder = store.run(run.run_id)
    if ranks.size > 1:
        connect(ranks, device)
    with Attempt(folder) if ranks.leads else OnlookersAttempt() as attempt:
        done = ranks.agree(folder.done())
        if done is not None:  # the attempt that was waited out has finished the run
            attempt.end("not needed")
            yield Progress(done["step"], run.steps, None, done["status"])
            return
        yield Progress(0, run.steps, None)
        torch.manual_seed(run.seed)
        objective = build_objective(run.objective)
        with ranks.first_then_others():
            pretrained = load_model(run.model, store.cache, needs_head=objective.needs_head)
        model = objective.build_model(pretrained)
        require_fit(run, pretrained)
        arrays = objective_arrays(objective, pretrained.tokenizer, run.sequence_length, store.cache)
        highest = objective.highest_token(arrays)
        require_known_tokens(run.model.name, pretrained, highest, needs_head=objective.needs_head)
        sample = _sample(objective.batch(arrays, run, 1))
        groups = find_layer_groups(model, lambda: objective.loss_sum(model, sample))
        engine = build_engine(run, model, pretrained, groups, ranks, device)
        backbone = engine.in_float32(pretrained.backbone)
        blocks = find_blocks(backbone)
        rows = choose_rows(run.probe, pretrained.tokenizer, store.cache)
        require_known_tokens(
            run.model.name, pretrained, int(rows.input_ids.max()), needs_head=False
        )
        reference = reference_states(run.model, store.cache, backbone, blocks, rows, device, ranks)
        probe = DepthProbe(run.probe, rows, reference, backbone, blocks, device)
        resumed = load_checkpoint(folder, engine)
        notice = notice or Notice()
        writer: RunWriter | OnlookersWriter = OnlookersWriter(run)
        if ranks.leads:
            write_run_record(folder, run, pretrained.facts, device)
            folder.forget_rows_after(resumed)
            writer = RunWriter(run, folder, attempt.require_ownership)
            if resumed:
                writer.take_back(folder.checkpoint_path(resumed))
        attempt.log("model ready", **pretrained.facts.as_record(), groups=len(groups))
        attempt.resumed_from(resumed)
        status: Status = "finished"
        step, loss = resumed, None
        stop = ranks.agreed_cause(notice, device)
        if stop:
            attempt.end(stop)
            yield Progress(step, run.steps, loss, stop, resumed)
            return

        for step in range(resumed + 1, run.steps + 1):
            batch = objective.batch(arrays, run, step)
            rate = learning_rate(run.optimizer, step, run.steps)
            loss = float(objective.accumulate(engine, batch, run.micro_batch_size))
            layers = engine.step(rate)
            targets = objective.targets(batch)
            writer.add("steps", step, [_step_row(loss, rate, targets, layers)])
            writer.add("layers", step, _layer_rows(groups, layers))
            if not (math.isfinite(loss) and math.isfinite(layers.total_gradient_norm)):
                status = "diverged"
                break
            if step in run.probe_steps:
                writer.add("profiles", step, probe.measure(step))
            ended_part = writer.end_step(step)
            if step < run.steps:
                stop = ranks.agreed_cause(notice, device)
                if ended_part or stop:
                    save_checkpoint(folder, step, engine, attempt.require_ownership, writer)
                    attempt.log("checkpoint", step=step, loss=loss)
                if stop:
                    attempt.end(stop)
                    yield Progress(step, run.steps, loss, stop, resumed)
                    return
            elif run.execution.keep_checkpoint:
                save_checkpoint(folder, step, engine, attempt.require_ownership, writer)
            yield Progress(step, run.steps, loss, None, resumed)

        writer.finish(status, step)
        if ranks.leads and not run.execution.keep_checkpoint:
            folder.forget_checkpoints()
        attempt.end(status)
        yield Progress(step, run.steps, loss, status, resumed)


def _sample(batch: Batch) -> Batch:
    """Return enough of a batch to see in which order the model's modules run."""
    return {
        name: tensor[:2, :16] if tensor.dim() > 1 else tensor[:2] for name, tensor in batch.items()
    }


def _step_row(loss: float, rate: float, targets: int, layers: LayerStep) -> dict[str, Any]:
    return {
        "loss": loss,
        "learning_rate": rate,
        "grad_norm": layers.total_gradient_norm,
        "clip_coefficient": layers.clip_coefficient,
        "targets": targets,
    }


def _layer_rows(groups: tuple[LayerGroup, ...], layers: LayerStep) -> Iterator[dict[str, Any]]:
    for k, group in enumerate(groups):
        yield {
            "layer": group.layer,
            "group": group.kind,
            "grad_norm": layers.gradient_norms[k],
            "weight_norm": layers.weight_norms[k],
            "update_norm": layers.update_norms[k],
            "coefficient": layers.coefficients[k],
        }
