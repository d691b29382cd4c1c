"""Rows of local files: what is read, and what is refused with its place."""

import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.rows.cells import Labels
from sweeps.rows.local_rows import PLAIN_TEXT, checked, columns_of, read_rows

TEXT = {"text": "text"}
BOTH = {"text": "text", "label": "label"}
CELLS = {"text": "text", "label": "label"}


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "A.JSONL", "a[1].jsonl", "a*.jsonl", "a?.jsonl"])
def test_a_path_is_what_it_says(tmp_path, name):
    for other in ("a1.jsonl", "ab.jsonl"):
        written(tmp_path, other, '{"text": "another"}\n')
    path = written(tmp_path, name, '{"text": "this"}\n')
    assert read_rows([path], TEXT).cells == {"text": ["this"]}


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_byte_order_mark_is_no_text(tmp_path, kind):
    line = "grün" if kind == "txt" else '{"text": "grün"}'
    path = written(tmp_path, f"a.{kind}", b"\xef\xbb\xbf" + line.encode() + b"\r\n")
    assert columns_of([path]) == ("text",)
    assert read_rows([path], TEXT).cells == {"text": ["grün"]}


def test_blank_lines_are_passed_over_and_lines_keep_their_numbers(tmp_path):
    path = written(tmp_path, "a.jsonl", '\n{"text": "x"}\n  \n{"text": 3}\n')
    rows = read_rows([path], TEXT)
    assert [rows.where(k) for k in (0, 1)] == [f"{path}:2", f"{path}:4"]
    with pytest.raises(UserError, match=r"a\.jsonl:4: column 'text' .* must be a text; found int"):
        checked(rows, PLAIN_TEXT)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "ok"}\n{"text": "gr\xfcn"}\n', r"a\.jsonl:2: byte 13 .*0xfc.*UTF-8"),
        ("a.txt", b"fine\nfine\n\xff\n", r"a\.txt:3: byte 1 "),
        ("a.jsonl", '{"text": "ok"}\n{"text": "cu', r"a\.jsonl:2: not a whole JSON object"),
        ("a.jsonl", '{"text": "ok"}\n["ok"]\n', r"a\.jsonl:2: .*one JSON object"),
        ("a.jsonl", '{"text": "ok"}\n{"txt": "ok"}\n', r"a\.jsonl:2: has no 'text'.*it has txt"),
        ("a.jsonl", '{"text": "\\ud800"}\n', r"a\.jsonl:1: .*surrogate"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl:1: "),
        ("a.jsonl", "", "no rows"),
        ("a.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet: cannot be read as Parquet"),
    ],
)
def test_a_file_that_is_not_whole_is_named_with_its_line(tmp_path, name, content, said):
    with pytest.raises(UserError, match=said) as refused:
        checked(read_rows([written(tmp_path, name, content)], TEXT), PLAIN_TEXT)
    assert "\n" not in str(refused.value)


NO_TEXT = ["", " \t\n", None, 3, 2.5, True, ["a", "b"], {"a": 1}]
NO_LABEL = [None, "one", "-1", "1.5", "", 0.5, -1, [0], float("nan"), {"a": 0}]


@pytest.mark.parametrize(
    ("column", "cell"),
    [*[("text", cell) for cell in NO_TEXT], *[("label", cell) for cell in NO_LABEL]],
    ids=str,
)
def test_a_cell_that_is_no_text_or_no_label_is_named_with_row_and_column(tmp_path, column, cell):
    rows = [{"text": f"t{k}", "label": k % 2} for k in range(9)]
    rows[6] = {**rows[6], column: cell}
    path = written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=rf"a\.jsonl:7: column '{column}' "):
        checked(read_rows([path], BOTH), CELLS)


@pytest.mark.parametrize("cell", [1e39, -1e39, "3.5e38", 10**400, float("nan")], ids=str)
def test_a_number_is_one_of_32_bits(tmp_path, cell):
    cells = [0.5, -1.5, 3.4028234e38, cell]
    lines = [json.dumps({"text": "t", "label": one}) for one in cells]
    numbers = {"text": "text", "label": "number"}
    path = written(tmp_path, "a.jsonl", "\n".join(lines))
    with pytest.raises(UserError, match=r"a\.jsonl:4: column 'label' .* a finite number"):
        checked(read_rows([path], BOTH), numbers)
    path = written(tmp_path, "a.jsonl", "\n".join(lines[:3]))
    assert checked(read_rows([path], BOTH), numbers)["label"] == cells[:3]


@pytest.mark.parametrize(
    "cells",
    [
        [datetime.date(2024, 1, 2), datetime.date(2024, 1, 3)],
        [b"bytes", b"more"],
        [["a"], ["b"]],
        ["a", None],
    ],
    ids=["dates", "bytes", "lists", "nulls"],
)
def test_cells_of_parquet_are_held_to_the_same(tmp_path, cells):
    pq.write_table(pa.table({"text": cells, "label": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet, row [12]: column 'text'"):
        checked(read_rows([tmp_path / "a.parquet"], BOTH), CELLS)


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0, 1, 1], pa.uint8()),
        pa.array([0.0, 1.0, 1.0]),
        pa.array([False, True, True]),
        pa.array([0, 1, 1]).dictionary_encode(),
    ],
    ids=["small", "floats", "booleans", "categories"],
)
def test_whole_numbers_are_labels_however_they_are_kept(tmp_path, labels):
    texts = pa.array(["a", "b", "a"]).dictionary_encode()
    folder = tmp_path / "text=7"  # no column either
    folder.mkdir()
    pq.write_table(pa.table({"my.text": texts, "y": labels}), folder / "a.parquet")
    found = checked(read_rows([folder / "a.parquet"], {"text": "my.text", "label": "y"}), CELLS)
    assert found == {"text": ["a", "b", "a"], "label": [0, 1, 1]}
    assert all(type(label) is int for label in found["label"])


def test_labels_are_all_of_the_numbers_from_0_and_no_others(tmp_path):
    def labelled(labels, count, limit=None):
        text = "".join(json.dumps({"text": "t", "label": one}) + "\n" for one in labels)
        rows = read_rows([written(tmp_path, "a.jsonl", text)], BOTH)
        return checked(rows, CELLS, Labels(count), limit)["label"]

    assert labelled([1, 0, 2, 1], 3) == [1, 0, 2, 1]
    # What a limit leaves out is not read.
    assert labelled([1, 0, 2, None], 2, limit=2) == [1, 0]
    with pytest.raises(UserError, match=r"a\.jsonl:3: .*0\.\.1 .*`labels`.*found int 2"):
        labelled([0, 1, 2], 2)
    with pytest.raises(UserError, match=r"a\.jsonl: no row has label 0"):
        labelled([1, 2], 3)


def test_packed_text_may_be_empty_and_other_text_not(tmp_path):
    path = written(tmp_path, "a.txt", "first\n\nthird\n")
    assert checked(read_rows([path], TEXT), PLAIN_TEXT)["text"] == ["first", "", "third"]
    with pytest.raises(UserError, match=r"a\.txt:2: column 'text' .*a text that is not empty"):
        checked(read_rows([path], TEXT), {"text": "text"})


@pytest.mark.parametrize(
    "unseen", ["", " ", "\n\t", "\u3000", "\u200b", "\ufeff", "\x00", " \u200d "]
)
def test_a_text_of_which_nothing_is_seen_is_empty_with_its_row_and_column(tmp_path, unseen):
    rows = [{"text": "good"}, {"text": unseen}]
    path = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"a\.jsonl:2: column 'text' .*a text that is not empty"):
        checked(read_rows([path], TEXT), {"text": "text"})
    seen = [{"text": f"{unseen}\U0001f469\u200d\U0001f52c"}]
    path = written(tmp_path, "b.jsonl", json.dumps(seen[0]))
    assert checked(read_rows([path], TEXT), {"text": "text"})["text"] == [seen[0]["text"]]


def test_a_word_that_is_not_seen_is_a_word(tmp_path):
    """Datasets of tagged words have some."""
    cells = {"tokens": "words", "labels": "tags"}
    columns = {role: role for role in cells}
    row = {"tokens": ["a", "\u200b"], "labels": [0, 1]}
    path = written(tmp_path, "a.jsonl", json.dumps(row))
    assert checked(read_rows([path], columns), cells)["tokens"] == [row["tokens"]]
    for word in ("", " ", None, 3):
        path = written(tmp_path, "b.jsonl", json.dumps({**row, "tokens": ["a", word]}))
        with pytest.raises(UserError, match=r"b\.jsonl:1: column 'tokens' .* must be a word"):
            checked(read_rows([path], columns), cells)


SWEEP = """
name: s
models: {tiny: {standin: gpt2}}
objectives: {classification: {labels: %d, data: {file: rows.jsonl}}}
probe: {data: {builtin: python-docs}, sequence_length: 16}
defaults: {steps: 4, batch_size: 4, sequence_length: 16, learning_rate: 1.0e-3}
blocks: [{name: all, grid: {model: [tiny], objective: [classification], control: [standard],
  seed: [0]}}]
"""


@pytest.mark.parametrize(
    ("labels", "change", "said"),
    [
        (2, {"label": None}, r"s\.yaml:4: .*rows\.jsonl:6: column 'label'"),
        (2, {"text": " "}, r"s\.yaml:4: .*rows\.jsonl:6: column 'text' .*not empty"),
        (2, {"text": ["a"]}, r"s\.yaml:4: .*rows\.jsonl:6: column 'text'"),
        (
            2,
            {"label": 2},
            r"s\.yaml:4: .*rows\.jsonl:6: column 'label' .*whole number 0\.\.1 .*found int 2",
        ),
        (3, {}, r"s\.yaml:4: .*no row has label 2"),
    ],
)
def test_bad_cells_are_refused_while_the_sweep_is_read(tmp_path, labels, change, said):
    rows = [{"text": f"t{k}", "label": k % 2} for k in range(8)]
    rows[5] = {**rows[5], **change}
    written(tmp_path, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=said):
        read_sweep(written(tmp_path, "s.yaml", SWEEP % labels))
