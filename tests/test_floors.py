"""The READMEs of the floors name what is there, and what they say to type is understood."""

import re
import shlex
from pathlib import Path

import click
import pytest

from orchestrator.cli import cli

FLOORS = ("sweeps", "workers", "orchestrator", "cluster", "tests")


def page(floor):
    return Path(floor, "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("floor", FLOORS)
def test_every_room_and_file_of_a_floor_has_its_line(floor):
    there = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in Path(floor).iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py")
        or (path.is_dir() and path.name != "__pycache__" and any(path.iterdir()))
    }
    (rooms,) = re.findall(r"^\| (?:room|file) \|.*?\n\n", page(floor), flags=re.M | re.S)
    assert sorted(name for name in there if f"`{name}`" not in rooms) == []
    named = set(re.findall(r"^\| (`[^|]*`) \|", rooms, flags=re.M))
    files = {name for row in named for name in re.findall(r"`([\w./]+)`", row)}
    assert sorted(name for name in files if not Path(floor, name).exists()) == []


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_is_told_in_a_page(floor):
    assert 30 <= len(page(floor).splitlines()) <= 80


@pytest.mark.parametrize("floor", FLOORS)
def test_every_path_of_the_repository_that_is_named_exists(floor):
    named = re.findall(r"`((?:tests|sweeps|workers|orchestrator|cluster)/[\w./]+)`", page(floor))
    assert named
    assert [path for path in named if not Path(path).exists()] == []


@pytest.mark.parametrize("floor", FLOORS)
def test_what_a_page_says_to_type_is_understood(floor):
    for line in re.findall(r"^depthsweep (.*)$", page(floor), flags=re.M):
        words = shlex.split(line.split("  #")[0])
        command = cli.get_command(click.Context(cli), words[0])
        command.make_context(words[0], words[1:])
