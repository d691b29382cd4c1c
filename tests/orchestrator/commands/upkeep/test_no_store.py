"""What every command that reads a store says of a place that is none."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from sweeps.errors import UserError
from sweeps.store.store import Store

COMMANDS = [
    ("status",),
    ("status", "study"),
    ("ls",),
    ("gc",),
    ("doctor",),
    ("query", "SELECT 1 FROM runs"),
    ("query", "SELECT 1 FROM runs", "--all"),
    ("profile", "study"),
    ("compare", "study"),
    ("claims", "study"),
    ("report", "study"),
    ("digest", "study"),
    ("resume", "study"),
    ("distance", "study"),
    ("power", "study"),
    ("export", "study", "--to", "tensorboard"),
    ("forget", "0123456789ab"),
    ("logs", "study"),
    ("logs", "0123456789ab"),
    ("cancel", "study"),
]
OF_ANY_STORE = [
    words for words in COMMANDS if words in (("status",), ("ls",), ("gc",), ("doctor",))
]


def refusal(*words: object) -> str:
    """Return what a command refuses with."""
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert isinstance(result.exception, UserError), (words, result.output)
    return str(result.exception)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_name_that_was_mistyped_is_no_empty_store(words, tmp_path: Path) -> None:
    assert "no such folder" in refusal(*words, "--store", tmp_path / "stoer")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_folder_of_something_else_is_no_store(words, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    assert "is no store" in refusal(*words, "--store", tmp_path)


@pytest.mark.parametrize("words", OF_ANY_STORE, ids=" ".join)
def test_a_store_with_nothing_in_it_yet_is_one(words, tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "new"))
    store.identify()
    result = CliRunner().invoke(cli, [*words, "--store", store.location])
    assert result.exit_code == 0, result.output
