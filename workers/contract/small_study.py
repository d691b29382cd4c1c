"""A run of seconds that uses what is under test, for the contract tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from sweeps.sources.corpora import corpus_digest, standin_digest
from sweeps.spec import (
    BuiltinData,
    Execution,
    ModelSpec,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    Standard,
    StandinModel,
)
from sweeps.store.store import Store
from workers.train import train

TEXT = BuiltinData(builtin="python-docs", digest=corpus_digest("python-docs"))
# What two runs of one specification have to have alike, bit by bit.
COMPARED = ("steps", "layers", "profiles", "metrics", "samples")


def small_run(**fields: Any) -> RunSpec:
    """Return a run of six steps of a stand-in, with other fields where they are given."""
    source = StandinModel(
        standin="gpt2",
        layers=3,
        width=32,
        vocabulary=400,
        pretrain_steps=3,
        pretraining="clm",
        digest=standin_digest(),
    )
    usual = {
        "model": ModelSpec(name="small", source=source),
        "objective": Objective(kind="clm", data=TEXT),
        "control": Standard(),
        "seed": 0,
        "steps": 6,
        "batch_size": 4,
        "sequence_length": 16,
        "optimizer": Optimizer(learning_rate=1e-3),
        "probe": Probe(data=TEXT, rows=32, sequence_length=16, every=3),
        "execution": Execution(part_steps=3),
    }
    return RunSpec(**{**usual, **fields})


def rows_of_two(run: RunSpec, folder: Path) -> list[dict[str, Any]]:
    """Carry a run out in two stores; return of each how it ended and its rows by table."""
    found = []
    for name in ("one", "other"):
        store = Store.at(str(folder / name))
        store.identify()
        status = [one.status for one in train(run, store, torch.device("cpu"))][-1]
        parts = {table: store.run(run.run_id).parts(table) for table in COMPARED}
        tables = {
            table: [str(pq.read_table(part, partitioning=None).to_pydict()) for part in paths]
            for table, paths in parts.items()
        }
        found.append({"status": status, **tables})
    return found
