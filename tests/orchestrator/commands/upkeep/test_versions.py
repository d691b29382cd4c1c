"""Wherever a command takes a sweep's name it takes ``name@digest``, and is about that version."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from planted_store import run_spec, save_sweep, write_run

from orchestrator.cli import cli
from sweeps.errors import UserError
from sweeps.store.store import Store

ARMS = ("standard", "equal_step")


def runs(model):
    fields = {"steps": 4, "probe_every": 2, "part_steps": 4}
    return [run_spec(model, "mlm", arm, seed, **fields) for arm in ARMS for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store whose sweep was of one model, and is of another now."""
    store = Store.at(str(tmp_path_factory.mktemp("versions") / "store"))
    for model in ("opt-before", "opt-now"):
        for run in runs(model):
            write_run(store, run, lambda x, seed=run.seed: 0.1 + x + 0.01 * seed)
        save_sweep(store, "study", runs(model))
    return store


def depthsweep(*arguments):
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


# Each command that reads a sweep by its name, so that what it prints names the sweep's model.
COMMANDS = {
    "profile": ("profile", "{}"),
    "compare": ("compare", "{}"),
    "status": ("status", "{}"),
    "plan": ("plan", "{}", "--json"),
    "power": ("power", "{}"),
    "resume": ("resume", "{}", "--dry-run", "--json"),
    "ls": ("ls", "{}", "--runs"),
    "query": ("query", "SELECT DISTINCT model FROM runs", "--sweep", "{}"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_is_about_the_version_that_is_named(store, words):
    now, before = (one.digest for one in store.versions())
    for name, there, other in (
        ("study", "now", "before"),
        (f"study@{now[:5]}", "now", "before"),
        (f"study@{before}", "before", "now"),
    ):
        shown = depthsweep(*(word.format(name) for word in words), "--store", store.root)
        known = [run.run_id for run in runs(f"opt-{there}")]
        assert f"opt-{there}" in shown or known[0] in shown, shown
        assert f"opt-{other}" not in shown
        assert not any(run.run_id in shown for run in runs(f"opt-{other}"))


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_version_that_was_never_run_is_refused(store, words):
    with pytest.raises(UserError, match=r"sweep 'study' has no version 'ffff0000'"):
        depthsweep(*(word.format("study@ffff0000") for word in words), "--store", store.root)


def test_report_digest_and_export_are_of_the_version_that_is_named(store, tmp_path):
    now, before = (one.digest for one in store.versions())
    for digest, there, other in ((now, "now", "before"), (before, "before", "now")):
        page = tmp_path / f"{there}.html"
        depthsweep("report", f"study@{digest[:6]}", "-o", page, "--store", store.root)
        text = page.read_text(encoding="utf-8")
        assert f"opt-{there}" in text
        assert f"opt-{other}" not in text
    shown = {depthsweep("digest", f"study@{one}", "--store", store.root) for one in (now, before)}
    assert len(shown) == 2
    assert depthsweep("digest", "study", "--store", store.root) in shown
    words = ("--to", "tensorboard", "--store", store.root)
    assert depthsweep("export", f"study@{before[:4]}", *words) == "study: 6 runs to tensorboard\n"


def test_claims_are_those_of_the_version(tmp_path):
    claims = Path("sweeps/library/paper.claims.yaml").read_text(encoding="utf-8")
    own = Store.at(str(tmp_path / "store"))
    for run in runs("opt-now"):
        write_run(own, run, [0.1, 0.2])
    sweep = save_sweep(own, "study", runs("opt-now"))
    (bare,) = own.versions()
    own.save_sweep(type(sweep)(sweep.name, "", sweep.text, sweep.runs, claims=claims))
    page = json.loads(depthsweep("claims", "study", "--json", "--store", own.root))
    assert page["claims"]
    with pytest.raises(UserError, match="came with no claims"):
        depthsweep("claims", f"study@{bare.digest}", "--store", own.root)
