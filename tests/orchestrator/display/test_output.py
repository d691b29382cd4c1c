"""Where an answer goes, how wide it is, and what becomes of characters that stdout has not."""

import contextlib
import io
import os
import sys
from unittest import mock

import polars as pl
import pytest
from click.testing import CliRunner
from planted_store import run_spec, save_sweep, write_run

from orchestrator.cli import cli, main
from orchestrator.display.output import terminal_width
from sweeps.store.store import Store
from tests.orchestrator.command_line import typed

MODEL = "tiny-größe-模型"
RUNS = "SELECT model, seed FROM runs"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store.at(str(tmp_path_factory.mktemp("output") / "store"))
    runs = [run_spec(MODEL, "clm", c, seed) for c in ("standard", "equal_step") for seed in (0, 1)]
    for run in runs:
        write_run(store, run, [0.1, 0.2 + 0.01 * run.seed, 0.4])
    save_sweep(store, "toy", runs)
    return store.location


def printed(encoding, errors, *words):
    """Return what a command ends with, and prints to a stdout of an encoding."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
    with (
        contextlib.redirect_stdout(stdout),
        mock.patch.object(sys, "argv", ["depthsweep", *words]),
        mock.patch("gc.set_threshold"),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    stdout.flush()
    return ended.value.code, stdout.buffer.getvalue()


@pytest.mark.parametrize("words", [("profile", "toy"), ("query", RUNS), ("compare", "toy")])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_a_page_is_printed_whatever_stdout_can_say(store, words, encoding):
    """A question mark stands for a character that the encoding lacks; ASCII is taken for UTF-8."""
    code, said = printed(encoding, "strict", *words, "--store", store)
    assert code == 0
    name = MODEL if encoding == "ascii" else MODEL.replace("模型", "??")
    assert name.encode("utf-8" if encoding == "ascii" else encoding) in said


def test_what_a_person_says_of_such_characters_holds(store):
    code, said = printed("latin-1", "backslashreplace", "profile", "toy", "--store", store)
    assert code == 0
    assert b"\\u6a21" in said
    code, said = printed("utf-8", "strict", "profile", "toy", "--store", store)
    assert MODEL.encode() in said


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_data_is_refused_where_it_would_be_other_data(store, capsys, form):
    code, said = printed("latin-1", "strict", "query", RUNS, "--format", form, "--store", store)
    assert (code, said) == (2, b"")
    told = capsys.readouterr().err
    assert "stdout is latin-1, which lacks '\\u6a21'; set PYTHONIOENCODING=utf-8" in told
    assert told.count("\n") == 1
    for encoding in ("utf-8", "ascii"):
        code, said = printed(encoding, "strict", "query", RUNS, "--format", form, "--store", store)
        assert code == 0
        assert MODEL.encode() in said


@pytest.mark.parametrize(
    "words",
    [
        ("query", RUNS),
        ("query", RUNS, "--format", "csv"),
        ("query", RUNS, "--format", "parquet"),
        ("profile", "toy", "--export", "csv"),
        ("profile", "toy", "--runs"),
        ("compare", "toy", "--export", "json"),
    ],
    ids=" ".join,
)
def test_a_dash_is_stdout(store, tmp_path, words):
    """It prints what the command prints without it, and leaves no file of that name."""
    with contextlib.chdir(tmp_path):
        plain, dash = (
            CliRunner().invoke(cli, [*words, "--store", store, *more]) for more in ((), ("-o", "-"))
        )
    assert (dash.exit_code, dash.stdout_bytes) == (plain.exit_code, plain.stdout_bytes)
    assert dash.stdout_bytes
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_printed_by_a_dash_alone(store, tmp_path):
    with contextlib.chdir(tmp_path):
        done = CliRunner().invoke(cli, ["report", "toy", "--store", store, "-o", "-"])
    assert done.exit_code == 0, done.output
    assert done.stdout_bytes.decode().startswith("<!doctype html>")
    assert done.stdout_bytes.decode().endswith("</html>\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report", "toy", "--format", "svg", "-o", "-"), "-o -: figures cannot go to stdout"),
        (("export", "0123456789ab", "-o", "-"), "-o -: the folder of a model cannot go to stdout"),
        (("init", "--model", "gpt2", "-o", "-"), "-o -: a sweep file is checked where it lies"),
        (
            ("plan", "demo", "--simulate", "--gpus", "1x80", "--gantt", "-"),
            "--gantt -: a page beside the plan cannot go to stdout",
        ),
    ],
)
def test_a_dash_is_refused_where_stdout_has_no_place_for_it(store, tmp_path, words, said):
    more = () if words[0] == "init" else ("--store", store)
    done = typed(*words, *more, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "width"),
    [("170", 170), ("0", 80), ("", 80), ("wide", 80), ("-5", 80), ("3", 20)],
)
def test_off_a_terminal_a_person_says_how_wide_a_page_is(asked, width):
    with (
        mock.patch.dict(os.environ, COLUMNS=asked),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        assert terminal_width() == width


def test_off_a_terminal_a_page_has_eighty_columns_by_itself():
    with contextlib.redirect_stdout(io.StringIO()):
        assert terminal_width() == 80


def test_what_found_no_room_is_shown_where_there_is_more(store):
    wide = "SELECT * FROM runs"
    narrow, broad = (
        typed("query", wide, "--store", store, **more).stdout for more in ({}, {"COLUMNS": "170"})
    )
    assert max(map(len, narrow.splitlines())) <= 80
    assert 80 < max(map(len, broad.splitlines())) <= 170


@pytest.mark.parametrize("command", ["profile", "compare"])
def test_the_narrowest_page_is_one(store, command):
    done = typed(command, "toy", "--store", store, COLUMNS="1")
    assert done.returncode == 0, done.stderr
    assert "COLUMNS=120" in " ".join(done.stdout.split())


def test_a_file_is_written_as_wide_as_ever(store, tmp_path):
    target = tmp_path / "runs.csv"
    assert typed("query", RUNS, "--store", store, "-o", target).returncode == 0
    assert pl.read_csv(target)["model"].to_list() == [MODEL] * 4
