"""Packing in pieces, outside of memory where it is long, against the whole stream in a list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import resolve_data
from sweeps.errors import UserError
from sweeps.rows.local_rows import PLAIN_TEXT
from workers.data import array_file, packing
from workers.data.array_file import read_arrays, write_arrays
from workers.data.datasets import load_rows, stream_texts
from workers.data.packing import pack
from workers.data.token_cache import cached_arrays

TEXTS = [f"sentence {k} of a text that is neither short nor long" * (1 + k % 3) for k in range(40)]
TEXTS[7:9] = ["", "   "]


def obvious(tokenizer, texts, length, framed):
    """The whole stream in one list, cut at last."""
    separator = tokenizer.eos_token_id
    separator = tokenizer.sep_token_id if separator is None else separator
    stream = []
    for text in texts:
        if text.strip():
            stream += tokenizer(text, add_special_tokens=False)["input_ids"]
            stream += [] if separator is None else [separator]
    inner = length - 2 * framed
    rows = [stream[k : k + inner] for k in range(0, len(stream) - inner + 1, inner)]
    if framed:
        rows = [[tokenizer.cls_token_id, *row, tokenizer.sep_token_id] for row in rows]
    return rows


@pytest.mark.parametrize("kind", ["clm", "mlm"])
@pytest.mark.parametrize("length", [3, 16, 64])
@pytest.mark.parametrize("pieces", [(1, 1), (3, 100), (1000, 1 << 30)])
def test_pieces_are_cut_as_the_whole(tokenizers, kind, length, pieces, monkeypatch) -> None:
    monkeypatch.setattr(packing, "TOKENISE_BATCH", pieces[0])
    if pieces[0] == 3:
        monkeypatch.setattr(packing, "TOKENISE_CHARACTERS", 120)
    monkeypatch.setattr(packing, "MAPPED_BYTES", pieces[1])
    framed = kind == "mlm"
    found = pack(tokenizers[kind], iter(TEXTS), length, framed=framed)["input_ids"]
    assert isinstance(found, np.memmap) == (pieces[1] < 1000)
    assert found.tolist() == obvious(tokenizers[kind], TEXTS, length, framed)
    assert found.dtype == np.int32


@pytest.fixture
def beginning():
    """A tokenizer that puts <s> before each text, as Llama's does."""
    words = sorted({word for text in TEXTS for word in text.split()})
    known = {word: number for number, word in enumerate(["<s>", "</s>", "<unk>", *words])}
    made = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", known["<s>"])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def test_a_first_token_stands_where_the_tokenizer_itself_puts_one(beginning) -> None:
    whole = [
        token
        for text in TEXTS
        if text.strip()
        for token in (*beginning(text)["input_ids"], beginning.eos_token_id)
    ]
    found = pack(beginning, iter(TEXTS), 16, framed=False, bos="text")["input_ids"]
    assert found.ravel().tolist() == whole[: found.size]
    assert len(whole) - found.size < 16
    assert whole.count(beginning.bos_token_id) == sum(bool(text.strip()) for text in TEXTS)


def test_a_first_token_of_sequences_stands_before_what_is_cut_without_it(beginning) -> None:
    inner = pack(beginning, iter(TEXTS), 15, framed=False)["input_ids"]
    found = pack(beginning, iter(TEXTS), 16, framed=False, bos="sequence")["input_ids"]
    assert found[:, 1:].tolist() == inner.tolist()
    assert set(found[:, 0]) == {beginning.bos_token_id}
    assert beginning.bos_token_id not in inner


def test_large_arrays_are_mapped_and_small_ones_read(tmp_path: Path, monkeypatch) -> None:
    arrays = {
        "a": np.arange(1000, dtype=np.int32).reshape(10, 100),
        "none": np.empty((0, 3), dtype=np.int64),
        "b": np.arange(7) > 3,
        "c": np.linspace(0, 1, 5, dtype=np.float32),
    }
    monkeypatch.setattr(array_file, "CHUNK_BYTES", 64)
    write_arrays(tmp_path / "a", arrays, {"key": "k"})
    assert read_arrays(tmp_path / "a", {"key": "other"}, mapped=True) is None
    for least, mapped in ((1 << 30, False), (1, True)):
        monkeypatch.setattr(array_file, "MAPPED_BYTES", least)
        found = read_arrays(tmp_path / "a", {"key": "k"}, mapped=True)
        assert found is not None
        assert {name: array.tolist() for name, array in found.items()} == {
            name: array.tolist() for name, array in arrays.items()
        }
        assert isinstance(found["a"], np.memmap) == mapped
        assert {name: array.dtype for name, array in found.items()} == {
            name: array.dtype for name, array in arrays.items()
        }


def test_what_is_mapped_outlives_its_file(tmp_path: Path, monkeypatch) -> None:
    """A cache that is cleaned up while a run trains takes nothing from it."""
    monkeypatch.setattr(array_file, "MAPPED_BYTES", 1)
    made = {"input_ids": np.arange(60, dtype=np.int32).reshape(20, 3)}
    found = cached_arrays(tmp_path, {"a": 1}, lambda: made)["input_ids"]
    assert isinstance(found, np.memmap)
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    assert found[[3, 19]].tolist() == [[9, 10, 11], [57, 58, 59]]


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("seed", [None, 3])
def test_texts_that_stream_are_those_that_are_loaded(tmp_path: Path, limit, seed) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        rows = "".join(json.dumps({"t": f"{name} {k}"}) + "\n" for k in range(4))
        (tmp_path / name).write_text(rows)
    files = ["b.jsonl", "a.jsonl"]
    entry = DataEntry(file=files, columns={"text": "t"}, limit=limit, shuffle_seed=seed)
    data = resolve_data(entry, ("text",), tmp_path)
    texts = list(stream_texts(data))
    assert texts == load_rows(data, PLAIN_TEXT)["text"]
    assert len(texts) == (limit or 8)
    assert (texts[0] == "b.jsonl 0") == (seed is None)


def test_a_cell_that_streams_is_held_to_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n\n{"text": 3}\n')
    data = resolve_data(DataEntry(file="a.jsonl"), ("text",), tmp_path)
    with pytest.raises(UserError, match=r"a\.jsonl:3: column 'text' .*must be a text; found int"):
        list(stream_texts(data))


def test_a_file_that_was_edited_does_not_stream(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    data = resolve_data(DataEntry(file="a.txt"), ("text",), tmp_path)
    (tmp_path / "a.txt").write_text("one\nand two\n")
    with pytest.raises(UserError, match="has other content than the run was declared with"):
        next(stream_texts(data))
