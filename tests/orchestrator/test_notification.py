"""Somebody is told of a sweep's end, and nothing that goes wrong with it touches the sweep."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner
from notice_server import serve_notices
from planted_store import run_spec, write_run

from orchestrator import notification
from orchestrator.cli import cli
from orchestrator.ledger.sweep_account import SweepResult
from orchestrator.notification import notifying, tell
from sweeps.declaration.entries.notify import Notify
from sweeps.declaration.expand import Sweep, read_sweep
from sweeps.errors import UserError
from sweeps.store.store import Store

MAIN = [sys.executable, "-m", "orchestrator"]
SMALL = """
name: small
models: {a: {standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 5}}
objectives: {clm: {data: {builtin: python-source}}}
probe: {data: {builtin: python-docs}, rows: 32, sequence_length: 16, every: 10}
measurements: []
defaults: {steps: 20, batch_size: 4, sequence_length: 16, learning_rate: 1e-3, part_steps: 10}
blocks: [{name: all, grid: {model: [a], objective: [clm], control: [standard], seed: [0, 1]}}]
"""
RUNS = [run_spec("gpt2", seed=seed) for seed in (0, 1)]
SWEEP = Sweep("two", "", "name: two\n", tuple(RUNS))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("told")
    with serve_notices(folder) as url:
        yield url, folder


@pytest.fixture
def told(server, monkeypatch):
    """Return what the server was told during a test, in order; no proxy stands before it."""
    url, folder = server
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    before = set(folder.glob("*.json"))
    return url, lambda: [
        json.loads(path.read_text()) for path in sorted(set(folder.glob("*.json")) - before)
    ]


def ended(**statuses):
    result = SweepResult("two", 0)
    for run, status in zip(RUNS, statuses.values(), strict=False):
        result.ended[run.run_id] = status
    return result


def test_a_sweep_on_the_command_line_tells_a_server_that_it_has_ended(told, tmp_path):
    """Its runs have results already: nothing is computed, and the end is an end all the same."""
    url, pages = told
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    for run in read_sweep(tmp_path / "small.yaml").runs:
        write_run(Store.at(str(tmp_path / "store")), run, [0.1, 0.2])
    words = ["run", "small.yaml", "--notify", f"{url}/kept"]
    done = subprocess.run([*MAIN, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (page,) = pages()
    assert page["text"] == "depthsweep: small finished: nothing left to run"
    assert (page["outcome"], page["exit_code"], page["skipped"]) == ("finished", 0, 2)


def test_failed_runs_are_told_by_what_they_are_with_their_errors(told):
    url, pages = told
    result = ended(a="finished", b="failed")
    result.errors[RUNS[1].run_id] = "ValueError: planted"
    with notifying(f"{url}/kept", SWEEP, "./store") as give:
        give(result)
    (page,) = pages()
    assert page["runs"] == {"failed": 1, "finished": 1}
    (failed,) = page["failed"]
    assert failed["run_id"] == RUNS[1].run_id
    assert failed["what"].endswith("seed 1")
    assert page["text"].endswith(
        "1 failed, 1 finished; " + failed["what"] + ": ValueError: planted"
    )
    assert (page["outcome"], page["exit_code"]) == ("failed", 1)


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (UserError("no store"), "failed", 2),
        (OSError("disk full"), "failed", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_a_sweep_that_breaks_off_is_told_and_its_error_goes_on(told, error, outcome, code):
    url, pages = told
    with pytest.raises(type(error)), notifying(f"{url}/kept", SWEEP, "./store"):
        raise error
    (page,) = pages()
    assert (page["outcome"], page["exit_code"]) == (outcome, code)
    assert page["text"].startswith(f"depthsweep: two {outcome}: ")


@pytest.mark.parametrize(
    ("place", "said"),
    [("/broken", "HTTP 500"), ("/silent", "(no answer in 0.3 s|timed out)")],
)
def test_a_server_that_fails_or_is_silent_is_said_and_no_more(told, monkeypatch, place, said):
    monkeypatch.setattr(notification, "URL_SECONDS", 0.3 if place == "/silent" else 15.0)
    heard = []
    tell(told[0] + place, {"text": "x"}, heard.append)
    (line,) = heard
    assert re.search(said, line)


def test_nobody_there_is_said_without_the_address_that_may_be_secret():
    heard = []
    tell("http://127.0.0.1:9/services/T0/secret", {"text": "x"}, heard.append)
    (line,) = heard
    assert line.startswith("notify: http://127.0.0.1: ")
    assert "secret" not in line


def test_a_command_has_the_page_on_standard_input_and_its_line_in_the_environment(tmp_path):
    kept = tmp_path / "kept"
    command = f'cat > "{kept}.json"; printf %s "$DEPTHSWEEP_TEXT" > "{kept}.txt"'
    with notifying(command, SWEEP, "./store") as give:
        give(ended(a="finished", b="finished"))
    page = json.loads(kept.with_suffix(".json").read_text())
    assert page["outcome"] == "finished"
    assert kept.with_suffix(".txt").read_text() == page["text"]


@pytest.mark.parametrize(
    ("command", "said"),
    [("exit 3", "exit code 3"), ("nobody-has-this", "exit code 127"), ("sleep 60", "longer than")],
)
def test_a_command_that_fails_or_hangs_is_said_and_no_more(monkeypatch, capfd, command, said):
    monkeypatch.setattr(notification, "COMMAND_SECONDS", 0.5)
    with notifying(command, SWEEP, "./store") as give:
        give(ended(a="finished"))
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("target", ["ftp://host/x", "https://"])
def test_what_is_neither_a_command_nor_a_web_address_is_refused(tmp_path, target):
    words = ["run", "demo", "--dry-run", "--notify", target]
    done = subprocess.run([*MAIN, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "http:// or https://" in done.stderr


def test_no_run_id_depends_on_it():
    assert "notify" not in json.dumps(RUNS[0].identity())


@pytest.mark.parametrize("said", [["--notify", "https://chat.example/x"], []])
def test_a_submitted_sweep_has_its_driver_tell(monkeypatch, tmp_path, said):
    seen = []
    monkeypatch.setattr(
        "orchestrator.sweep_submit.submit_sweep", lambda request, *_: seen.append(request) or 0
    )
    words = ["submit", "demo", "--cluster", "local", "--store", str(tmp_path), *said]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert [w for w in seen[0].options if "notify" in w or "example" in w] == said


def test_the_environment_names_whom_to_tell_where_the_line_does_not(tmp_path):
    kept = tmp_path / "kept.txt"
    environment = {**os.environ, "DEPTHSWEEP_NOTIFY": f'printf %s "$DEPTHSWEEP_OUTCOME" > {kept}'}
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    for run in read_sweep(tmp_path / "small.yaml").runs:
        write_run(Store.at(str(tmp_path / "store")), run, [0.1, 0.2])
    words = [*MAIN, "run", "small.yaml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert kept.read_text() == "finished"


# ----------------------------------------------------------------------- the sweep file's own
def a_section(tmp_path, said, **environment):
    """Return a command line beside a sweep whose runs have results, and whose file names one."""
    (tmp_path / "small.yaml").write_text(f"{SMALL}notify: {said}\n", encoding="utf-8")
    for run in read_sweep(tmp_path / "small.yaml").runs:
        write_run(Store.at(str(tmp_path / "store")), run, [0.1, 0.2])
    known = {name: value for name, value in os.environ.items() if name != "DEPTHSWEEP_NOTIFY"}

    def depthsweep(*words):
        return subprocess.run(
            [*MAIN, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**known, **environment},
        )

    return depthsweep


def test_whom_the_sweep_file_names_is_told_by_run_by_resume_and_beside_the_option(tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    depthsweep = a_section(tmp_path, f"echo $DEPTHSWEEP_OUTCOME >> {own}")
    assert "when it ends `echo" in depthsweep("plan", "small.yaml").stdout
    for words in (["run", "small.yaml"], ["resume", "small"]):
        done = depthsweep(*words)
        assert done.returncode == 0, done.stderr
    assert own.read_text().split() == ["finished"] * 2
    depthsweep("run", "small.yaml", "--notify", f"echo told >> {other}")
    assert (len(own.read_text().split()), other.read_text()) == (3, "told\n")
    depthsweep("run", "small.yaml", "--notify", "none")
    assert len(own.read_text().split()) == 3


def test_an_address_that_is_secret_stands_in_the_environment_and_nowhere_else(told, tmp_path):
    url, pages = told
    depthsweep = a_section(tmp_path, "{variable: TEAM_HOOK}", TEAM_HOOK=f"{url}/kept?secret")
    done = depthsweep("run", "small.yaml")
    assert [page["outcome"] for page in pages()] == ["finished"], done.stderr
    kept = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert not any(b"secret" in content for content in kept)
    assert "secret" not in done.stdout + done.stderr


def test_a_variable_that_is_not_set_is_said_and_changes_nothing(tmp_path):
    done = a_section(tmp_path, "{variable: NOBODY_SET_THIS}")("run", "small.yaml")
    assert done.returncode == 0
    assert "notify: NOBODY_SET_THIS is not set here" in done.stderr


@pytest.mark.parametrize(("statuses", "times"), [(("finished",) * 2, 0), (("failed",) * 2, 1)])
def test_of_failures_alone_is_told_who_asks_for_them(tmp_path, statuses, times):
    kept = tmp_path / "kept"
    section = Notify(command=f"echo told >> {kept}", when="failure")
    with notifying(None, replace(SWEEP, notify=section), "./store") as give:
        give(ended(a=statuses[0], b=statuses[1]))
    assert (kept.read_text().count("told") if kept.exists() else 0) == times


def test_who_is_named_twice_is_told_once(tmp_path):
    command = f"echo told >> {tmp_path / 'kept'}"
    with notifying(command, replace(SWEEP, notify=Notify(command=command)), "./store") as give:
        give(ended(a="finished"))
    assert (tmp_path / "kept").read_text() == "told\n"
