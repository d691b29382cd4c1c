"""Datasets of the hub that are read as they come; local files, by ``datasets``, stand for it."""

from __future__ import annotations

import itertools
import json
import shutil

import datasets
import numpy as np
import polars as pl
import pytest
import torch
from small_run import make_run

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.rows.held_out import Part
from sweeps.spec import Evaluation, HubData, Objective
from sweeps.store.store import Store
from workers.data import hub_stream
from workers.data.datasets import load_rows, stream_texts
from workers.data.hub_stream import drawn
from workers.models import hub
from workers.train import train

CPU = torch.device("cpu")
ROWS = [{"body": f"row {k} of a set that is too large", "mark": k % 3} for k in range(90)]
STREAMED = HubData(
    hub="owner/large", revision="a" * 40, columns={"text": "body"}, stream=True, limit=60
)
real_load = datasets.load_dataset


class Hub:
    """A dataset of three files, and what was asked for; reading fails after ``good`` rows."""

    def __init__(self, folder):
        self.files = []
        for k in range(3):
            path = folder / f"part-{k}.jsonl"
            rows = ROWS[30 * k : 30 * k + 30]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            self.files.append(str(path))
        self.asked = []
        self.good = []

    def load_dataset(self, name, config, *, revision, split, streaming=False):
        self.asked.append((name, config, revision, split, streaming))
        stream = real_load("json", data_files=self.files, split="train", streaming=True)
        assert streaming, "nothing is downloaded"
        if not self.good:
            return stream
        return stream.map(self._delivered, fn_kwargs={"left": [self.good.pop(0)]})

    @staticmethod
    def _delivered(row, left):
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionError("the line broke")
        return row


@pytest.fixture
def large(tmp_path, monkeypatch):
    folder = tmp_path / "hub"
    folder.mkdir()
    made = Hub(folder)
    monkeypatch.setattr(datasets, "load_dataset", made.load_dataset)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "kept")
    return made


def texts(data):
    return list(stream_texts(data))


def test_the_first_rows_come_in_order_and_nothing_is_kept(large, tmp_path):
    assert texts(STREAMED) == [row["body"] for row in ROWS[:60]]
    assert large.asked == [("owner/large", None, "a" * 40, "train", True)]
    assert [path.name for path in (tmp_path / "kept").rglob("*.arrow")] == []
    more = STREAMED.model_copy(update={"limit": 1000})
    assert texts(more) == [row["body"] for row in ROWS]


def test_rows_with_labels_stream_too(large):
    del large
    data = STREAMED.model_copy(update={"columns": {"text": "body", "label": "mark"}, "limit": 7})
    found = load_rows(data, {"text": "text", "label": "label"})
    assert found["label"] == [0, 1, 2, 0, 1, 2, 0]
    held = load_rows(data, {"text": "text", "label": "label"}, part=Part(0.25, held_out=True))
    assert 0 < len(held["label"]) < 7


def test_a_seed_shuffles_files_and_rows_and_always_alike(large, monkeypatch):
    del large
    monkeypatch.setattr(hub_stream, "WAITING", 20)
    data = STREAMED.model_copy(update={"shuffle_seed": 3, "limit": 90})
    order = [int(text.split()[1]) for text in texts(data)]
    assert sorted(order) == list(range(90))
    assert order == [int(text.split()[1]) for text in texts(data)]
    other = STREAMED.model_copy(update={"shuffle_seed": 4, "limit": 90})
    assert order != [int(text.split()[1]) for text in texts(other)]
    # Of a file that is read first no row comes later than all have waited.
    files = [row // 30 for row in order]
    assert files[:10] == [files[0]] * 10
    assert sum(a > b for a, b in itertools.pairwise(order)) > 20
    # A part is the first of the same.
    few = STREAMED.model_copy(update={"shuffle_seed": 3, "limit": 25})
    assert [int(text.split()[1]) for text in texts(few)] == order[:25]


def test_what_is_drawn_is_every_row_once():
    for waiting in (1, 7, 50, 200):
        found = list(drawn(range(100), np.random.default_rng(0), waiting))
        assert sorted(found) == list(range(100))
        assert (found == list(range(100))) == (waiting == 1)


@pytest.mark.parametrize("seed", [None, 5])
def test_a_line_that_breaks_is_taken_up_where_it_was(large, monkeypatch, seed):
    monkeypatch.setattr(hub, "FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(hub_stream, "ROWS_AT_ONCE", 8)
    monkeypatch.setattr(hub_stream, "WAITING", 10)
    data = STREAMED.model_copy(update={"shuffle_seed": seed})
    whole = texts(data)
    large.good = [30, 0, 55]
    assert texts(data) == whole
    assert len(large.asked) == 1 + 4


def test_a_hub_that_stays_away_is_said_with_the_dataset(large, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE_SECONDS", 0.0)
    large.good = [0, 0]
    with pytest.raises(hub.HubUnavailable, match=r"dataset owner/large: .*the line broke"):
        texts(STREAMED)


def test_a_column_that_is_not_there_and_a_cell_that_is_no_text_are_named(large):
    with pytest.raises(
        UserError, match=r"large has no column 'text' \(the text\); it has body, ma"
    ):
        texts(STREAMED.model_copy(update={"columns": {}}))
    first = large.files[0]
    with open(first, "w") as file:
        file.write('{"body": "good", "mark": 0}\n{"body": null, "mark": 0}\n')
    with pytest.raises(UserError, match=r"dataset large, row 2: column 'body'.*nothing"):
        texts(STREAMED)


def test_only_the_order_of_a_seed_makes_it_another_run():
    kept = STREAMED.model_copy(update={"stream": False})
    assert STREAMED.identity() == kept.identity()
    seeded = [one.model_copy(update={"shuffle_seed": 1}).identity() for one in (STREAMED, kept)]
    assert seeded[0] != seeded[1]
    assert "stream" not in seeded[1]


def test_a_run_on_a_stream_that_is_resumed_has_the_same_rows(large, tmp_path):
    data = STREAMED.model_copy(update={"shuffle_seed": 2})
    run = make_run(
        objective=Objective(kind="clm", data=data), evaluation=Evaluation(fraction=0.3, batches=2)
    )
    found = {}
    for how in ("whole", "stopped"):
        store = Store.at(str(tmp_path / how))
        store.identify()
        if how == "stopped":
            running = train(run, store, CPU)
            while next(running).step < 4:
                pass
            running.close()
            shutil.rmtree(tmp_path / how / "cache" / "tokens")
        assert [one.status for one in train(run, store, CPU)][-1] == "finished"
        parts = store.run(run.run_id)
        found[how] = [
            pl.read_parquet(parts.parts(table)) for table in ("steps", "profiles", "evaluations")
        ]
    # Training and evaluation are read once each, and again where what was packed is gone.
    assert len(large.asked) == 2 + 4
    for whole, stopped in zip(*found.values(), strict=True):
        assert whole.equals(stopped)


def test_the_probe_may_be_of_a_stream(large, tmp_path):
    run = make_run()
    run = run.model_copy(update={"probe": run.probe.model_copy(update={"data": STREAMED})})
    store = Store.at(str(tmp_path / "store"))
    store.identify()
    assert [one.status for one in train(run, store, CPU)][-1] == "finished"
    assert len(large.asked) == 1


SWEEP = """
name: large
models: {{a: {{standin: gpt2, layers: 2, width: 32}}}}
objectives: {{clm: {{data: {{{data}}}{evaluation}}}}}
probe: {{data: {{builtin: python-docs}}, rows: 16}}
defaults: {{steps: 4, batch_size: 4, sequence_length: 16, learning_rate: 1.0e-3}}
blocks: [{{name: all, grid: {{model: [a], objective: [clm], control: [standard], seed: [0]}}}}]
"""
PINNED = f"hub: owner/large, revision: {'a' * 40}, stream: true"


@pytest.mark.parametrize(
    ("data", "evaluation", "said"),
    [
        (PINNED, "", "stream: true reads the first so many rows: say how many with `limit`"),
        (f"{PINNED}, limit: 9, split: 'train[:5%]'", "", "reads one split, and not train"),
        (f"{PINNED}, limit: 9, split: train+test", "", "reads one split, and not train"),
        ("builtin: python-docs, stream: true", "", "stream does nothing with builtin"),
        (
            f"{PINNED}, limit: 9",
            ", evaluation: {split: test}",
            "split: test of a dataset that is streamed would be read whole",
        ),
    ],
)
def test_what_a_stream_cannot_do_is_refused_by_plan(tmp_path, data, evaluation, said):
    path = tmp_path / "large.yaml"
    path.write_text(SWEEP.format(data=data, evaluation=evaluation))
    with pytest.raises(UserError) as error:
        read_sweep(path)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{path}:")
    assert "\n" not in str(error.value)


def test_a_stream_with_a_limit_is_planned(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text(
        SWEEP.format(data=f"{PINNED}, limit: 9", evaluation=", evaluation: {fraction: 0.2}")
    )
    (run,) = read_sweep(path).runs
    assert run.objective.data.stream
    assert run.objective.data.limit == 9
