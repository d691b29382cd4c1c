"""Every form that people keep rows in gives the same cells, and what is wrong has a place."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import names_of_labels, resolve_data
from sweeps.errors import UserError
from sweeps.rows.cells import Labels
from sweeps.rows.local_rows import checked, chosen_rows, label_names, read_rows
from sweeps.rows.row_files import FORMATS, RowFile

TEXTS = ["one, two", 'he said "no"', "grün\nund weiß", "a\tb", "  spaces  ", "", "ﬀ 😀"]
BOTH = {"text": "text", "label": "label"}
CELLS = {"text": "stream", "label": "label"}


def as_table(separator: str) -> Callable[[list[str], list[int]], bytes]:
    def made(texts: list[str], labels: list[int]) -> bytes:
        out = io.StringIO(newline="")
        rows = csv.writer(out, delimiter=separator, lineterminator="\n")
        rows.writerows(
            [("id", "text", "label"), *zip(range(len(texts)), texts, labels, strict=True)]
        )
        return out.getvalue().encode()

    return made


def objects(texts: list[str], labels: list[int]) -> list[dict[str, object]]:
    return [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]


def as_lines(texts: list[str], labels: list[int]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in objects(texts, labels)).encode()


def as_arrow(kind: str) -> Callable[[list[str], list[int]], bytes]:
    def made(texts: list[str], labels: list[int]) -> bytes:
        table = pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels)})
        out = io.BytesIO()
        if kind == "parquet":
            pq.write_table(table, out)
        else:
            opened = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
            with opened(out, table.schema) as file:
                file.write_table(table)
        return out.getvalue()

    return made


# By name of a file: how rows are written into it.
WRITERS: dict[str, Callable[[list[str], list[int]], bytes]] = {
    "a.csv": as_table(","),
    "A.CSV": as_table(","),
    "a.tsv": as_table("\t"),
    "a.jsonl": as_lines,
    "a.ndjson": as_lines,
    "lines.json": as_lines,
    "list.json": lambda t, y: json.dumps(objects(t, y), indent=1).encode(),
    "one line.json": lambda t, y: json.dumps(objects(t, y)).encode(),
    "inside.json": lambda t, y: json.dumps({"version": 1, "data": objects(t, y)}).encode(),
    "a.parquet": as_arrow("parquet"),
    "a.arrow": as_arrow("stream"),
    "b.arrow": as_arrow("file"),
}
# How a text form is packed.
PACKED = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("name", WRITERS)
def test_a_form_gives_the_cells_that_went_in(tmp_path: Path, name: str, packing: str) -> None:
    if packing and Path(name).suffix in (".parquet", ".arrow"):
        with pytest.raises(UserError, match="a local dataset is one of"):
            RowFile.at(tmp_path / f"{name}{packing}")
        return
    labels = [k % 3 for k in range(len(TEXTS))]
    path = tmp_path / f"{name}{packing}"
    path.write_bytes(PACKED[packing](WRITERS[name](TEXTS, labels)))
    assert set(BOTH.values()) <= set(RowFile.at(path).columns())
    assert checked(read_rows([path], BOTH), CELLS) == {"text": TEXTS, "label": labels}
    streamed = list(RowFile.at(path).stream("text"))
    assert [text for _, text in streamed] == TEXTS
    rows = read_rows([path], BOTH)
    wheres = [RowFile.at(path).where(number) for number, _ in streamed]
    assert wheres == [rows.where(k) for k in range(len(TEXTS))]


def test_there_is_a_writer_of_every_form() -> None:
    assert {Path(name).suffix.lower() for name in WRITERS} | {".txt"} == set(FORMATS)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6))
def test_any_text_survives_a_table(tmp_path_factory: pytest.TempPathFactory, texts) -> None:
    texts = [text.replace("\r", " ").replace("\0", " ") for text in texts]
    path = tmp_path_factory.mktemp("t") / "a.csv"
    path.write_bytes(as_table(",")(texts, [0] * len(texts)))
    assert read_rows([path], BOTH).cells["text"] == texts


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", 'text,label\n"a\nb",1\n"c",1,2\n', r"a\.csv:4: has 3 cells"),
        ("a.csv", "text,label\na\n", r"a\.csv:2: has 1 cells"),
        ("a.csv", 'text,label\n"never closed,1\n', r"a\.csv:2: not a row"),
        ("a.csv", "text,text\na,b\n", r"a\.csv:1: two columns are called 'text'"),
        ("a.csv", b"text,label\ngr\xfcn,1\n", r"a\.csv:2: byte 3 .*UTF-8"),
        ("a.tsv", "txt\tlabel\na\t1\n", r"a\.tsv:2: has no 'text'.*it has txt, label"),
        ("a.json", '[{"text": "a", "label": 0}, 3]', r"a\.json, row 2: is no JSON object"),
        ("a.json", '[{"text": "a", "label": 0}', r"a\.json: not whole JSON"),
        ("a.json", '{"a": [1], "b": [2]}', r"has no 'text'"),
        ("a.json", '[{"text": "a", "label": 0}, {"label": 1}]', r"a\.json, row 2: has no 'text'"),
        ("a.jsonl.gz", b"not gzip", r"a\.jsonl\.gz: cannot be read: Not a gzipped file"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": 1}' * 9, mtime=0)[:-9],
            r"a\.jsonl\.gz: cannot be read",
        ),
        ("a.jsonl.zst", b"not zstd", r"a\.jsonl\.zst: cannot be read"),
        ("a.arrow", b"ARROW1 not really", r"a\.arrow: cannot be read as Arrow"),
        ("a.csv", "text,label\na,1\n,\n", r"a\.csv:3: column 'label' .*nothing"),
    ],
)
def test_what_is_no_row_is_named_with_its_place(tmp_path: Path, name, content, said) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said) as refused:
        checked(read_rows([path], BOTH), CELLS)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value).replace(str(tmp_path), "")) < 300


# ------------------------------------------------------------------------------------- documents
@pytest.mark.parametrize(
    ("documents", "texts", "lines"),
    [
        ("line", ["def f(x):", "    return x", "", "", "y = 1"], [1, 2, 3, 4, 5]),
        ("blank_line", ["def f(x):\n    return x", "y = 1"], [1, 5]),
        ("file", ["def f(x):\n    return x\n\n\ny = 1"], [1]),
    ],
)
def test_a_text_is_a_line_a_paragraph_or_a_file(tmp_path, documents, texts, lines) -> None:
    path = tmp_path / "a.txt"
    path.write_text("def f(x):\n    return x\n\n\ny = 1\n")
    rows = read_rows([path, path], {"text": "text"}, documents)
    assert rows.cells["text"] == [*texts, *texts]
    assert [rows.where(k) for k in range(len(texts) * 2)] == [f"{path}:{k}" for k in [*lines] * 2]


# ---------------------------------------------------------------------------------------- labels
def labels_of(tmp_path: Path, labels: list[object], names: tuple[str, ...] = ()) -> list[int]:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "t", "label": one}) + "\n" for one in labels))
    rows = read_rows([path], BOTH)
    labels = Labels(None, names or label_names(rows, "label"))
    return checked(rows, CELLS, labels)["label"]


def test_names_are_numbered_in_their_order(tmp_path: Path) -> None:
    assert labels_of(tmp_path, ["pos", "neg", "pos"]) == [1, 0, 1]
    assert labels_of(tmp_path, ["pos", "neg", "pos"], ("pos", "neg")) == [0, 1, 0]
    assert labels_of(tmp_path, [True, False]) == [1, 0]
    assert labels_of(tmp_path, ["0", "2", "10"]) == [0, 2, 10]
    assert labels_of(tmp_path, ["1.0", "0.0"]) == [1, 0]
    assert labels_of(tmp_path, ["-1", "1", "1"], ("-1", "1")) == [0, 1, 1]
    assert labels_of(tmp_path, ["7", "pos", "neg"]) == [0, 2, 1]


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        (["pos", None, "neg"], (), r"a\.jsonl:2: column 'label' .*must be a name"),
        (["pos", 1], (), r"a\.jsonl:2: .*must be a name.*found int 1"),
        *[
            (["0", "1", "0", odd, "1"], (), rf"a\.jsonl:4: .*must be a whole number .*{said}")
            for odd, said in [
                *[(odd, f"as other labels are; found str '{odd}'") for odd in ("1.5", "NA", "-1")],
                ("inf", "found str 'inf'"),
                ("nan", "found str 'nan'"),
                ("", "as other labels are; found nothing"),
                ("x" * 99, "found str 'xx"),
            ]
        ],
        ([True, False, True, "NA"], (), r"a\.jsonl:4: .*must be a whole number.*found str 'NA'"),
        ([0, 1, 0, "NA"], (), r"a\.jsonl:4: .*must be a whole number.*found str 'NA'"),
        (["0.5", "0.25", "0.75", "1.0"], (), r"a\.jsonl:1: .*no measure; found str '0.5'"),
        (["0.5", "0.25", "", "NA"], (), r"a\.jsonl:1: .*no measure; found str '0.5'"),
        (["1", "-1", "-1"], (), r"a\.jsonl:2: .*whole number from 0 on.*found str '-1'"),
        (["pos", "", "neg", "7"], (), r"a\.jsonl:2: column 'label' .*must be a name.*nothing"),
        (["pos", "neg", "\ud83d"], (), r"a\.jsonl:3: column 'label' .*half of a surrogate pair"),
        (["\udc00", "neg"], ("neg", "\udc00"), r"a\.jsonl:1: column 'label' .*surrogate pair"),
        (["pos", "new"], ("neg", "pos"), r"a\.jsonl:2: .*one of neg, pos; found str 'new'"),
    ],
)
def test_a_label_that_is_none_of_the_names_is_named(tmp_path, labels, names, said) -> None:
    with pytest.raises(UserError, match=said):
        labels_of(tmp_path, labels, names)


def test_the_names_that_a_dataset_was_saved_with_are_kept(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["good", "bad"])}
    )
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    table.to_parquet(tmp_path / "a.parquet")
    rows = read_rows([tmp_path / "a.parquet"], BOTH)
    assert label_names(rows, "label") == ("good", "bad")
    assert checked(rows, CELLS, Labels(2, ("good", "bad")))["label"] == [1, 0]


@pytest.mark.parametrize("said", [["bad", "good"], ["good", "bad", "ugly"], ["good", "evil"]])
def test_names_in_another_order_than_the_data_numbers_them_are_refused(tmp_path, said) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["good", "bad"])}
    )
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    table.to_parquet(tmp_path / "a.parquet")
    data = resolve_data(DataEntry(file="a.parquet"), ("text", "label"), tmp_path)
    for names in ((), ["good", "bad"]):
        assert names_of_labels(data, "label", names) == ("good", "bad")
    with pytest.raises(UserError, match="numbers its labels as good, bad"):
        names_of_labels(data, "label", said)


# ------------------------------------------------------------------------------- parts of a dataset
def test_a_part_is_the_first_rows_in_their_order_or_that_of_a_seed() -> None:
    assert chosen_rows(4, None, None) == [0, 1, 2, 3]
    assert chosen_rows(4, 2, None) == [0, 1]
    assert chosen_rows(4, 9, None) == [0, 1, 2, 3]
    shuffled = chosen_rows(50, None, 1)
    assert sorted(shuffled) == list(range(50)) != shuffled
    assert chosen_rows(50, 7, 1) == shuffled[:7] != chosen_rows(50, 7, 2)
