import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import resolve_data
from sweeps.errors import UserError
from sweeps.rows.local_rows import PLAIN_TEXT
from sweeps.spec import HubData
from workers.data.datasets import batch_indices, load_rows
from workers.data.packing import pack, pad
from workers.data.token_cache import cached_arrays


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 50))
def test_each_epoch_shows_every_example_once(seed, batch_size, examples):
    steps = 3 * examples // batch_size + 1
    seen = np.concatenate(
        [batch_indices(seed, step, batch_size, examples) for step in range(1, steps + 1)]
    )
    for epoch in range(len(seen) // examples):
        part = seen[epoch * examples : (epoch + 1) * examples]
        assert sorted(part) == list(range(examples))


def test_each_epoch_has_an_order_of_its_own():
    orders = {tuple(batch_indices(3, step, 50, 50).tolist()) for step in range(1, 5)}
    assert len(orders) == 4


def test_a_batch_depends_on_seed_and_step_alone():
    assert (batch_indices(1, 7, 8, 100) == batch_indices(1, 7, 8, 100)).all()
    assert (batch_indices(1, 7, 8, 100) != batch_indices(2, 7, 8, 100)).any()
    assert (batch_indices(1, 7, 8, 100) != batch_indices(1, 8, 8, 100)).any()


def test_packing_keeps_the_whole_stream_in_order(tokenizers):
    tokenizer = tokenizers["clm"]
    texts = ["import os", "", "return the value of x"]
    ids = pack(tokenizer, texts * 10, 8, framed=False)["input_ids"]
    separated = [
        token
        for text in texts * 10
        if text
        for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    ]
    assert ids.dtype == np.int32
    assert ids.flatten().tolist() == separated[: ids.size]
    assert len(separated) - ids.size < 8


def test_packing_for_an_encoder_frames_each_row(tokenizers):
    tokenizer = tokenizers["mlm"]
    ids = pack(tokenizer, ["the value is returned as it was"] * 20, 10, framed=True)["input_ids"]
    assert ids.shape[1] == 10
    assert (ids[:, 0] == tokenizer.cls_token_id).all()
    assert (ids[:, -1] == tokenizer.sep_token_id).all()


def test_padding_marks_what_is_text(tokenizers):
    tokenizer = tokenizers["mlm"]
    arrays = pad(tokenizer, ["a", "a much longer sentence than the row has room for"], 6, "x_")
    mask = arrays["x_attention_mask"]
    assert mask[1].all()
    assert 0 < mask[0].sum() < 6
    assert (arrays["x_input_ids"][0][mask[0] == 0] == tokenizer.pad_token_id).all()


def test_too_little_text_is_refused(tokenizers):
    with pytest.raises(UserError, match="less than one sequence of 64"):
        pack(tokenizers["clm"], ["short"], 64, framed=False)
    with pytest.raises(UserError, match="row 1 of the dataset has no token"):
        pad(tokenizers["clm"], ["text", ""], 8)


LABELLED = {"text": "text", "label": "label"}
ROWS = [{"sentence": f"text {k}", "label": k % 2} for k in range(5)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".txt"])
def test_local_files_load_as_they_are(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        path.write_text("".join(row["sentence"] + "\n" for row in ROWS))
    columns = {} if suffix == ".txt" else {"text": "sentence"}
    data = resolve_data(DataEntry(file=path.name, columns=columns), ("text",), tmp_path)
    assert load_rows(data, PLAIN_TEXT) == {"text": [row["sentence"] for row in ROWS]}


def test_arrays_are_made_once_for_one_key(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"input_ids": np.arange(6, dtype=np.int32).reshape(2, 3)}

    first = cached_arrays(tmp_path, {"a": 1}, make)
    again = cached_arrays(tmp_path, {"a": 1}, make)
    other = cached_arrays(tmp_path, {"a": 2}, make)
    assert len(made) == 2
    for arrays in (first, again, other):
        assert arrays["input_ids"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_hub_dataset_is_loaded_once_at_its_commit_and_its_columns_are_checked(
    monkeypatch, tmp_path
):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)

    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = HubData(
        hub="owner/name",
        config="small",
        revision="a" * 40,
        split="validation",
        columns={"text": "sentence"},
    )
    for _ in range(2):
        assert load_rows(data, LABELLED)["label"] == [0, 1, 0, 1, 0]
    assert asked == [(("owner/name", "small"), {"revision": "a" * 40, "split": "validation"})]
    with pytest.raises(UserError, match=r"no column 'positive'.*it has sentence, label"):
        load_rows(data, {"text": "text", "positive": "text"})


def test_a_hub_that_cannot_be_reached_is_said_with_the_dataset(monkeypatch, tmp_path):
    import datasets

    from workers.models import hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(hub, "PATIENCE_SECONDS", 0.0)

    def load_dataset(*_, **__):
        raise ConnectionError("could not reach\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = HubData(hub="owner/name", revision="a" * 40)
    with pytest.raises(hub.HubUnavailable, match=r"dataset owner/name: .*could not reach the hub"):
        load_rows(data, PLAIN_TEXT)
