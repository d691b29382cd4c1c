"""SQL over a store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from planted_store import evaluated, run_spec, write_run

from sweeps.errors import UserError
from sweeps.reading.query import QueryError, query, render, write
from sweeps.reading.run_table import RunColumns
from sweeps.reading.tables import TABLE_NAMES, Tables, open_store
from sweeps.reading.text_table import Column, text_table
from sweeps.store.schema import ADDED_TABLES
from sweeps.store.store import Store


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    store = Store.at(str(tmp_path_factory.mktemp("query") / "store"))
    for seed in (0, 1):
        run = evaluated(run_spec("gpt2", seed=seed))
        write_run(store, run, [0.1, 0.3], deleted=[[0.1, 0.2]] * 2)
        write_run(
            store,
            evaluated(run_spec("opt", control="equal_step", seed=seed)),
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


@pytest.mark.parametrize("table", sorted({*TABLE_NAMES} - ADDED_TABLES))
def test_every_table_answers(tables: Tables, table: str) -> None:
    counted = query(tables, f"SELECT model, count(*) AS n FROM {table} GROUP BY ALL")
    assert set(counted["model"]) == {"gpt2", "opt"}
    assert counted["n"].min() > 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT procrustse FROM profiles", "no column 'procrustse' in profiles; did you mean"),
        ("SELECT r.lerning_rate FROM runs r", "did you mean 'learning_rate'"),
        ("SELECT * FROM profile", "no table 'profile'; did you mean 'profiles'?"),
        ("SELECT 1 FROM runs r JOIN stps s ON r.run_id = s.run_id", "did you mean 'steps'?"),
        ("SELECT * FROM xyz", "no table 'xyz'; there are runs, steps, layers, profiles,"),
        ("DESCRIBE profile", "no table 'profile'; did you mean 'profiles'?"),
        ("SELECT loss FROM runs", "no column 'loss' in runs; steps, samples have it"),
        (
            "SELECT control FROM runs JOIN steps USING (run_id)",
            'ambiguous reference to column "control" (use one of: runs.control, steps.control)',
        ),
        ("SELECT qqqq FROM runs", "DESCRIBE and a table shows all there are"),
        ("INSERT INTO runs VALUES (1)", "only SELECT, SHOW TABLES and DESCRIBE"),
        ("  drop TABLE runs", "only SELECT, SHOW TABLES and DESCRIBE"),
        ("SELEC 1", "sql parser error"),
        ("SELECT * FROM read_csv('/etc/passwd')", "read_csv reads files"),
        ("SELECT 1 FROM runs JOIN Read_Parquet ('x') USING (seed)", "the tables of a store alone"),
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


@pytest.mark.parametrize("table", TABLE_NAMES)
def test_a_table_is_described_by_its_columns(tables: Tables, table: str) -> None:
    found = query(tables, f"describe TABLE {table.upper()};")
    assert found["column"].to_list() == query(tables, f"SELECT * FROM {table}").columns


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


# ------------------------------------------------------------------------- only what a query names
@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The tables whose parts are asked for from now on."""
    tables: set[str] = set()

    def bring(_: Store, parts: Iterable[str]) -> None:
        tables.update(Path(part).parent.name for part in parts)

    monkeypatch.setattr(Store, "bring", bring)
    return tables


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("SELECT count(*) FROM runs", set()),
        ("SELECT model, status FROM runs WHERE seed = 0", set()),
        ("SELECT count(*) FROM attempts", set()),
        ("SELECT max(dose) FROM runs", set()),
        ("SELECT count(*) FROM steps", {"steps"}),
        ('SELECT count(*) FROM "steps"', {"steps"}),
        ("SELECT s.loss FROM steps AS s", {"steps"}),
        ("WITH last AS (SELECT * FROM profiles) SELECT count(*) FROM last", {"profiles"}),
        ("SELECT count(*) FROM steps JOIN profiles USING (run_id)", {"steps", "profiles"}),
        ("SELECT count(*) FROM (SELECT step FROM jackknife) AS j", {"jackknife"}),
        ("SELECT count(*) FROM/* no blanks */steps", {"steps"}),
    ],
)
def test_only_parts_of_the_tables_that_are_named_are_brought(
    tables: Tables, brought: set[str], sql: str, named: set[str]
) -> None:
    fresh = open_store(tables.store.root)
    assert query(fresh, sql).height > 0
    assert brought == named


def test_a_name_in_a_text_or_comment_is_at_worst_one_table_too_many(
    tables: Tables, brought: set[str]
) -> None:
    sql = "SELECT count(*) AS n FROM runs WHERE model <> 'steps' -- of profiles"
    assert query(open_store(tables.store.root), sql)["n"].to_list() == [4]
    assert brought <= {"steps", "profiles"}


def test_a_table_that_no_word_names_is_read_all_the_same(tables: Tables) -> None:
    """Nothing rests on the words of a query: they save time only."""
    frames = tables.by_name([])
    context = pl.SQLContext(frames, eager=False)
    for name, plain in tables.by_name().items():
        sql = f"SELECT * FROM {name} ORDER BY ALL"
        late = context.execute(sql).collect()
        assert late.equals(pl.SQLContext({name: plain}, eager=False).execute(sql).collect())
        assert dict(late.schema) == dict(tables.schema_of(name)) == dict(plain.collect_schema())


def test_tables_are_shown_without_being_read(tables: Tables, brought: set[str]) -> None:
    assert set(query(open_store(tables.store.root), "SHOW TABLES")["name"]) == set(TABLE_NAMES)
    assert brought == set()


def test_counting_runs_makes_no_column(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    values = RunColumns._values

    def made(columns: RunColumns, name: str) -> list[Any]:
        asked.append(name)
        return values(columns, name)

    monkeypatch.setattr(RunColumns, "_values", made)
    assert query(open_store(tables.store.root), "SELECT count(*) AS n FROM runs").item() == 4
    assert asked == ["run_id"]
    del asked[:]
    query(open_store(tables.store.root), "SELECT model, avg(final_loss) FROM runs GROUP BY model")
    assert set(asked) == {"run_id", "model", "final_loss"}


def test_a_list_is_its_items_in_csv_and_whole_elsewhere() -> None:
    frame = pl.DataFrame({"shares": [[0.25, 0.5], [], None], "n": [1, 2, 3]})
    assert render(frame, "csv") == 'shares,n\n0.25 0.5,1\n"",2\n,3\n'
    assert '"shares":[0.25,0.5]' in render(frame, "jsonl")
    assert "[0.25, 0.5]" in render(frame, "table")


def test_a_text_that_looks_like_a_function_is_text(tables: Tables) -> None:
    assert query(tables, "SELECT seed FROM runs WHERE model <> 'read_csv(''x'')'").height > 0
