"""SQL over a store."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from planted_store import run_spec, write_run

from sweeps.errors import UserError
from sweeps.reading.query import QueryError, query, render, write
from sweeps.reading.tables import TABLE_NAMES, Tables, open_store
from sweeps.reading.text_table import Column, text_table
from sweeps.store.store import Store


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    store = Store.at(str(tmp_path_factory.mktemp("query") / "store"))
    for seed in (0, 1):
        write_run(store, run_spec("gpt2", seed=seed), [0.1, 0.3], deleted=[[0.1, 0.2]] * 2)
        write_run(
            store,
            run_spec("opt", control="equal_step", seed=seed),
            [0.2, 0.2],
            deleted=[[0.2, 0.2]],
        )
    return open_store(store.root)


def test_group_by_all_averages_over_conditions(tables: Tables) -> None:
    answer = query(
        tables,
        "SELECT model, control, avg(procrustes) AS d FROM profiles"
        " WHERE step = 20 AND layer > 0 GROUP BY ALL ORDER BY model",
    )
    assert answer.rows() == [
        ("gpt2", "standard", pytest.approx(0.2)),
        ("opt", "equal_step", pytest.approx(0.2)),
    ]


@pytest.mark.parametrize("table", TABLE_NAMES)
def test_every_table_answers(tables: Tables, table: str) -> None:
    counted = query(tables, f"SELECT model, count(*) AS n FROM {table} GROUP BY ALL")
    assert set(counted["model"]) == {"gpt2", "opt"}
    assert counted["n"].min() > 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT procrustse FROM profiles", "no column 'procrustse' in profiles; did you mean"),
        ("SELECT r.lerning_rate FROM runs r", "did you mean 'learning_rate'"),
        (
            "SELECT * FROM profile",
            "the tables are runs, steps, layers, profiles, jackknife, attempts",
        ),
        ("SELEC 1", "sql parser error"),
        ("SELECT isnan(seed) FROM runs", "isnan"),
    ],
)
def test_a_wrong_query_is_the_users_and_told_in_one_short_line(
    tables: Tables, sql: str, said: str
) -> None:
    with pytest.raises(QueryError) as error:
        query(tables, sql)
    message = str(error.value)
    assert isinstance(error.value, UserError)
    assert said in message
    assert "\n" not in message
    assert len(message) <= 400


def test_formats_round_trip(tables: Tables, tmp_path: Path) -> None:
    answer = query(tables, "SELECT model, seed FROM runs ORDER BY model, seed")
    assert render(answer, "csv").splitlines()[0] == "model,seed"
    assert pl.read_json(render(answer, "json").encode()).rows() == answer.rows()
    assert len(render(answer, "jsonl").splitlines()) == 4
    write(answer, "parquet", tmp_path / "answer.parquet")
    assert pl.read_parquet(tmp_path / "answer.parquet").equals(answer)


def test_a_wide_answer_fits_the_terminal_and_says_what_it_left_out(tables: Tables) -> None:
    text = render(query(tables, "SELECT * FROM profiles"), "table", width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "columns found no room; --format csv shows all" in text


def test_what_is_kept_gives_up_its_heading_before_its_cells_and_both_before_its_place() -> None:
    rate = Column("learning_rate", ["0.001", "0.0001"], kept=True)
    more = Column("more", ["1.0", "2.0"], right=True)
    verdict = Column("verdict", ["persists", "collapses"], rigid=True, kept=True)
    lines, left_out = text_table([rate, more, verdict], 30)
    assert (lines[0].split(), left_out) == (["learning_rate", "more", "verdict"], [])
    lines, left_out = text_table([rate, more, verdict], 25)
    assert (lines[0].split(), left_out) == (["learning_rate", "verdict"], ["more"])
    lines, left_out = text_table([rate, more, verdict], 17)
    assert [line.split() for line in lines] == [
        ["learn…", "verdict"],
        ["0.001", "persists"],
        ["0.0001", "collapses"],
    ]
    lines, left_out = text_table([rate, more, verdict], 9)
    assert (lines, left_out) == (["verdict", "persists", "collapses"], ["learning_rate", "more"])


def test_text_is_shortened_before_a_number_is() -> None:
    columns = [Column("name", ["a" * 60]), Column("value", ["1234567890.5"], right=True)]
    lines, left_out = text_table(columns, 40)
    assert left_out == []
    assert lines[1].endswith("…  1234567890.5")
    assert len(lines[1]) == 40
