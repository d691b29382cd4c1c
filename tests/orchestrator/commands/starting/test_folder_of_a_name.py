"""A folder that is named like a sweep is no sweep file, and hides none."""

from pathlib import Path

import pytest

from sweeps.declaration.expand import read_sweep
from sweeps.store.store import Store
from tests.orchestrator.command_line import typed


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a store that knows the sweep ``mine``, and folders named as sweeps are."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        Path("sweeps/library/demo.yaml").read_text().replace("name: demo", "name: mine")
    )
    Store.at(str(tmp_path / "store")).save_sweep(read_sweep(file))
    for name in ("demo", "mine", "other"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "demo"),
        ("plan", "mine"),
        ("power", "demo"),
        ("power", "mine"),
        ("diff", "demo", "mine"),
        ("run", "demo", "--dry-run"),
    ],
    ids=" ".join,
)
def test_it_hides_no_sweep_that_is_shipped_or_stored(here: Path, words: tuple[str, ...]) -> None:
    done = typed(*words, folder=here)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("plan", "other"), "other: is a folder, no sweep file, none of those that come"),
        (("power", "other"), "other: is a folder, no sweep file, none of those that come"),
        (("run", "other"), "other: is a folder, no sweep file, and none of that name"),
        (("diff", "other", "demo"), "other: is a folder, no sweep file, none of those"),
        (("run", "./demo"), "demo: is a folder; give the path of a sweep file"),
        (("plan", "demo/"), "demo: is a folder; give the path of a sweep file"),
        (("run", "."), ".: is a folder; give the path of a sweep file"),
        (("claims", "mine", "--claims", "other"), "other: is a folder; give the path of a claims"),
        (("submit", "other", "--cluster", "local", "--store", "s"), "other: is a folder, no sweep"),
        (
            ("submit", "demo", "--cluster", "./other", "--store", "s"),
            "other: is a folder; give the path of a cluster profile file",
        ),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_where_nothing_else_has_that_name_it_is_said_to_be_a_folder(
    here: Path, words: tuple[str, ...], told: str
) -> None:
    done = typed(*words, folder=here)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
