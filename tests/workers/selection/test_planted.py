"""Data in which a fifth of the examples have large gradients by construction."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_run import make_run

from sweeps.rows.data_files import data_files
from sweeps.sources.content import data_digest
from sweeps.spec import Execution, FileData, High, LengthMatched, Low, Moderate, Objective, Probe
from sweeps.store.store import Store
from workers.train import train

ROWS, STEPS = 160, 3
# Of five rows one is planted: its answer is a single word, so that its mean loss is of that one
# token alone, where those of others cancel over many.
ANSWER = "the value that was set before is returned by the function when it is called again"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    path = tmp_path_factory.mktemp("planted") / "rows.jsonl"
    rows = [
        {
            "prompt": f"what does function {k} do ",
            "completion": "is" if k % 5 == 0 else " ".join(ANSWER.split()[k % 3 :] * 2),
        }
        for k in range(ROWS)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return FileData(
        file=str(path),
        digest=data_digest(data_files(path, None)),
        columns={"prompt": "prompt", "completion": "completion"},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store.at(str(tmp_path_factory.mktemp("store")))
    store.identify()
    return store


def samples(run, store):
    assert [one.status for one in train(run, store, torch.device("cpu"))][-1] == "finished"
    (part,) = store.run(run.run_id).parts("samples")
    return pq.read_table(part, partitioning=None).to_pandas()


@pytest.mark.parametrize(
    "selection", [High, Low, Moderate, LengthMatched], ids=lambda kind: kind.__name__
)
def test_high_takes_the_planted_ones_and_low_and_moderate_none(selection, planted, store):
    run = make_run(
        objective=Objective(kind="sft", data=planted, packing="none"),
        selection=selection(loss_within=None),
        batch_size=8,
        sequence_length=64,
        steps=STEPS,
        probe=Probe(data=make_run().probe.data, rows=32, sequence_length=16),
        execution=Execution(part_steps=STEPS, micro_batch_size=4),
    )
    found = samples(run, store)
    assert len(found) == STEPS * 40
    large = found["example"] % 5 == 0
    # By construction, whatever is chosen: all of the planted ones are above all others.
    assert found[large]["grad_norm"].min() > found[~large]["grad_norm"].max()
    for step, rows in found.groupby("step"):
        chosen = rows[rows["chosen"]]
        assert len(chosen) == 8
        is_planted = chosen["example"] % 5 == 0
        there = int((rows["example"] % 5 == 0).sum())
        high = min(8, there)
        # Those that high leaves are as short as those that it takes.
        wanted = {High: high, LengthMatched: min(high, there - high)}.get(selection, 0)
        assert int(is_planted.sum()) == wanted, step
        if selection is Moderate:
            low = rows.nsmallest(8, "grad_norm")["candidate"]
            assert not set(chosen["candidate"]) & set(low)
        np.testing.assert_allclose([sum(one) for one in rows["layer_shares"]], 1.0, rtol=1e-5)
