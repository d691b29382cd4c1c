"""The weights that a run kept, compared with its base on another text than the run was probed on.

A probe decides nothing of the training: what is measured here is what the same run would have
measured, had its sweep named that text. So that is what it is recorded as, under the id of that
run, with the rows of its steps and layers as they were; every reader of a store reads it.
"""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq
import torch

from sweeps.attempts.writer import EVALUATIONS, RunWriter
from sweeps.errors import UserError
from sweeps.files.whole_files import Place, local_file
from sweeps.spec import Probe, RunSpec
from sweeps.store.run_folder import RunFolder
from sweeps.store.store import Store
from workers.models.fit import require_fit, require_known_tokens
from workers.probes.capture import reference_states
from workers.probes.measure import DepthProbe, Measured
from workers.probes.rows import choose_rows
from workers.run_record import provenance, write_run_record
from workers.weights.kept import base_of, kept_checkpoint, with_kept
from workers.weights.measuring import measuring

# Columns of the tables that no probe fills, which are filled at probe steps alone.
AT_PROBES = ("displacement", "displacement_cosine", "reversion")

Rows = dict[int, list[dict[str, Any]]]


def on_another_probe(run: RunSpec, probe: Probe) -> RunSpec:
    """Return the run that ``run`` would have been with a probe at its end on that data, other
    things of its probe being equal."""
    changed = run.probe.model_copy(update={"data": probe.data, "every": None})
    return run.model_copy(update={"probe": changed})


def measure_kept(run: RunSpec, other: RunSpec, store: Store, device: torch.device) -> None:
    """Record what ``other`` measures, which is ``run`` on another probe, of the weights it kept.

    Raises UserError where ``run`` kept none, or not those of its last step, or the probe does not
    fit the model. What is there already is left as it is.
    """
    source, folder = store.run(run.run_id), store.run(other.run_id)
    checkpoint = kept_checkpoint(source, run)
    done = source.done() or {}
    if source.step_of(checkpoint) != done["step"]:
        raise UserError(
            f"run {run.run_id} kept the weights of step {source.step_of(checkpoint)} and ended at"
            f" {done['step']}: what is measured at a run's end needs `keep: final`"
        )
    with measuring(other, store) as attempt:
        if folder.done() is not None:
            attempt.end("not needed")
            return
        attempt.describe(**provenance(device))
        tables = _tables(source, done)
        measured, facts = _measured(run, other, store, checkpoint, tables["profiles"], device)
        attempt.require_ownership()
        write_run_record(folder, other, facts, device)
        attempt.resumed_from(done["step"])
        writer = RunWriter(other, folder, attempt)
        probed = measured.by_table()
        for step in range(done["step"] + 1):
            last = step == done["step"]
            unsaid = {} if last or step in other.probe_steps else dict.fromkeys(AT_PROBES)
            scored = last or step in other.evaluation_steps
            for table in tables:
                rows = tables[table].get(step)  # of step 0 there are evaluations alone
                if rows and table not in probed and (scored or table != EVALUATIONS):
                    writer.add(table, step, [_with(row, unsaid) for row in rows])
            if last:
                for table, rows in probed.items():
                    writer.add(table, step, rows)
            if step:
                writer.end_step(step, is_last=last)
        writer.finish(done["status"], done["step"])
        attempt.end(done["status"])


def _with(row: dict[str, Any], values: dict[str, None]) -> dict[str, Any]:
    """Return a row with other values in those of its columns that are given."""
    return {name: values.get(name, value) for name, value in row.items()}


def _tables(folder: RunFolder, done: dict[str, Any]) -> dict[str, Rows]:
    """Return the rows of a closed run by table and step, without the run's id and the step."""
    found: dict[str, Rows] = {"profiles": {}}
    for name in done["parts"]:
        with local_file(folder.path / name) as file:
            for row in pq.read_table(file, partitioning=None).to_pylist():
                del row["run_id"]
                found.setdefault(name.split("/")[0], {}).setdefault(row.pop("step"), []).append(row)
    return found


def _measured(
    run: RunSpec,
    other: RunSpec,
    store: Store,
    checkpoint: Place,
    profiles: Rows,
    device: torch.device,
) -> tuple[Measured, Any]:
    pretrained = base_of(run, store)
    require_fit(other, pretrained)
    # Of an encoder-decoder the objective may train, and the run have probed, one stack alone.
    seen = {row["stack"] for rows in profiles.values() for row in rows}
    stacks = [stack for stack in pretrained.stacks if stack.name in seen]
    backbone = pretrained.backbone.to(device).eval()
    rows = choose_rows(other.probe, pretrained.facts.width, pretrained.tokenizer, store.cache)
    highest = int(rows.input_ids.max())
    require_known_tokens(run.model.name, pretrained, highest, needs_head=False)
    reference = reference_states(
        pretrained, run.model.name, store.cache, backbone, stacks, rows, device
    )
    trained = with_kept(run, pretrained, checkpoint)
    backbone.to(device)
    probe = DepthProbe(other.probe, reference, backbone, stacks, device)
    return probe.measure(trained.step, jackknife=True), pretrained.facts
