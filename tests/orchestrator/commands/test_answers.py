"""What commands print with --json has the shape that ``depthsweep schema COMMAND`` says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.testing import CliRunner
from planted_store import evaluated, run_spec, save_sweep, write_run

from orchestrator.answers.schemas import ANSWERS, schema_of
from orchestrator.cli import COMMANDS, cli
from sweeps.errors import UserError
from sweeps.store.store import Store

CLAIMS = "sweeps/library/paper.claims.yaml"


@pytest.fixture(autouse=True)
def soon_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that nobody is at is not watched for long."""
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "0.5")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a sweep that varies a learning rate: one run failed, one was lost, one is left;
    and of another one that is evaluated."""
    store = Store.at(str(tmp_path_factory.mktemp("answers") / "store"))
    grid = itertools.product((1e-3, 1e-2), ("standard", "equal_step"), range(3))
    runs = [run_spec("gpt2", "clm", c, seed, learning_rate=rate) for rate, c, seed in grid]
    other = [
        evaluated(run_spec("opt", "clm", c, seed))
        for c in ("standard", "equal_step")
        for seed in range(3)
    ]
    ends: dict[int, str | None] = {9: "failed", 10: None}
    for k, run in enumerate([*runs[:-1], *other]):
        slope = 0.3 + 0.01 * run.seed
        write_run(store, run, lambda x, s=slope: 0.1 + s * x, status=ends.get(k, "finished"))
    save_sweep(store, "rates", runs)
    save_sweep(store, "scored", other)
    write_run(store, run_spec("opt", seed=7), [0.1, 0.2])  # of no sweep
    return store.root


def failed_run(store: Path) -> str:
    rows = json.loads(printed(["status", "rates", "--store", str(store)]))["rates"]
    return str(next(row["run_id"] for row in rows if row["state"] == "failed"))


def printed(words: list[str]) -> str:
    result = CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False)
    return result.stdout


READING = [
    "plan rates",
    "plan demo",
    "plan demo --gpus 8x80 --simulate",
    "power rates",
    "power demo",
    "status rates",
    "status scored",
    "status",
    "ls",
    "ls --sizes",
    "ls rates",
    "ls --runs",
    "profile rates",
    "profile scored --at 10 --by model",
    "compare rates",
    "compare scored",
    "diff rates scored",
    "diff demo rates",
    f"claims rates --claims {CLAIMS}",
    "digest rates",
    "query SELECT * FROM runs",
    "doctor",
    "gc --dry-run",
    "run demo --dry-run",
    "resume rates --dry-run",
    "cluster list",
]


@pytest.mark.parametrize("line", READING)
def test_an_answer_has_the_shape_that_is_documented(line: str, store: Path) -> None:
    words = ["query", line.partition(" ")[2]] if line.startswith("query") else line.split()
    name = "cluster list" if words[0] == "cluster" else words[0]
    without_store = words[0] == "cluster" or (words[0] in ("plan", "power") and "demo" in words)
    place = [] if without_store else ["--store", str(store)]
    jsonschema.validate(json.loads(printed([*words, *place])), schema_of(name))


def test_every_line_of_a_log_has_its_shape(store: Path) -> None:
    run_id = failed_run(store)
    log = Path(str(Store(store).run(run_id).log_path(1)))
    log.parent.mkdir(exist_ok=True)
    events = ['{"time": "t", "level": "info", "event": "attempt started", "run": "x"}']
    log.write_text("\n".join(events) + "\n", encoding="utf-8")
    lines = printed(["logs", run_id, "--store", str(store)]).splitlines()
    assert lines == events
    jsonschema.validate(json.loads(lines[0]), schema_of("logs"))


def test_what_came_of_bringing_stores_together_has_its_shape(store: Path, tmp_path: Path) -> None:
    page = printed(["pull", str(store), "--store", str(tmp_path / "a"), "--sweep", "rates"])
    jsonschema.validate(json.loads(page), schema_of("pull"))
    page = printed(["merge", str(store), "--into", str(tmp_path / "b")])
    jsonschema.validate(json.loads(page), schema_of("merge"))
    page = printed(["doctor", "--migrate", "--store", str(store)])
    jsonschema.validate(json.loads(page), schema_of("doctor"))


def speaking() -> set[str]:
    """Return every command that takes --json, those of groups by both names."""
    found, context = set(), click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        below = command.commands if isinstance(command, click.Group) else {"": command}
        for inner, one in below.items():
            if any("--json" in parameter.opts for parameter in one.params):
                found.add(f"{name} {inner}".strip())
    return found


def test_every_command_that_prints_json_has_a_schema_and_no_other_has() -> None:
    assert speaking() == set(ANSWERS)


def test_every_command_that_reads_prints_json() -> None:
    """What a command makes or starts on this machine is told by what it makes."""
    making = {"init", "cancel", "report", "measure", "watch", "export", "forget", "cluster"}
    said = {name.split()[0] for name in speaking()}
    assert set(COMMANDS) - said == (making - said) | {"schema", "man"}


def walk(schema: Any) -> Any:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from walk(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from walk(value)


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_schema_is_valid_and_says_what_each_object_is(name: str) -> None:
    schema = schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    objects = [one for one in walk(schema) if "properties" in one and "required" in one]
    assert objects or name == "query"
    assert all(one["description"] and "additionalProperties" in one for one in objects)


def test_a_key_that_is_not_documented_would_be_noticed(store: Path) -> None:
    page = json.loads(printed(["status", "rates", "--store", str(store)]))
    page["rates"][0]["new"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(page, schema_of("status"))


def test_a_command_without_json_has_no_schema() -> None:
    with pytest.raises(UserError, match="did you mean 'profile'"):
        schema_of("profil")
