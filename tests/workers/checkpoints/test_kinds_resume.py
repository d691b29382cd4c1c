"""Each kind of objective from a user's file to rows in a store, also when it was cut short."""

import itertools
import json
import shutil

import polars as pl
import pytest
import torch
from kinds_on_ranks import KINDS
from small_run import make_run

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import resolve_data
from sweeps.spec import OBJECTIVE_DEFAULTS, Objective
from sweeps.store.store import Store
from workers.train import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def store_of(cache, tmp_path):
    def make(name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cache").symlink_to(cache)
        return Store(tmp_path / name)

    return make


def run_of(name, folder):
    kind, rows, options = KINDS[name]
    path = folder / f"{name}.jsonl"
    cells = zip(*rows.values(), strict=True)
    path.write_text("".join(json.dumps(dict(zip(rows, row, strict=True))) + "\n" for row in cells))
    data = resolve_data(DataEntry(file=path.name), tuple(rows), folder)
    options = {**OBJECTIVE_DEFAULTS[kind], **options}
    objective = Objective(kind=kind, data=data, read_roles=tuple(rows), **options)
    return make_run(objective=objective, sequence_length=32)


def losses(store, run):
    parts = store.run(run.run_id).parts("steps")
    return pl.concat([pl.read_parquet(path) for path in parts]).sort("step")["loss"].to_list()


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("sft", "preference", "pairs")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in KINDS
    ],
)
def test_a_run_that_was_cut_short_ends_as_one_that_was_not(name, store_of, tmp_path, cache):
    run = run_of(name, tmp_path)
    whole, cut = store_of("whole"), store_of("cut")
    assert list(train(run, whole, CPU))[-1].status == "finished"
    begun = train(run, cut, CPU)
    seen = list(itertools.islice(begun, 6))
    assert seen[-1].step >= 4
    begun.close()
    # What the model said before training is asked of it again, not of what it has become.
    shutil.rmtree(cache / "preference", ignore_errors=True)
    again = list(train(run, cut, CPU))
    assert again[-1].status == "finished"
    assert again[1].step > 1, "it began anew"
    assert losses(cut, run) == losses(whole, run)
    assert len(set(losses(whole, run))) == run.steps
