"""What the README says to type is what there is."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from orchestrator.cli import COMMANDS, cli
from sweeps.declaration.sweep_spec import SweepSpec
from sweeps.declaration.yaml_source import YamlSource

README = Path("README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.M | re.S)


def typed():
    """Each command line of the README that starts with depthsweep, without prompt and comment."""
    for _, block in BLOCKS:
        for line in block.splitlines():
            line = line.removeprefix("$ ").strip()
            if line.startswith("depthsweep "):
                yield shlex.split(line.split("  #")[0].split(" > ")[0])[1:]


@pytest.mark.parametrize("arguments", list(typed()), ids=" ".join)
def test_every_command_line_of_the_readme_is_understood(arguments):
    name, *rest = arguments
    if name.startswith("-"):
        assert name in ("--help", "-h", "--version")
        return
    command = cli.get_command(click.Context(cli), name)
    command.make_context(name, rest)  # raises for an option or argument that is not there


def test_the_readme_shows_every_command():
    missing = [name for name in COMMANDS if f"depthsweep {name}" not in README]
    assert missing == []


def test_every_make_target_of_the_readme_exists():
    makefile = Path("Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_the_sweep_file_of_the_readme_is_valid():
    (text,) = [block for kind, block in BLOCKS if kind == "yaml"]
    spec = YamlSource.parse(text, "README.md").validate(SweepSpec)
    assert spec.name == yaml.safe_load(text)["name"]


def test_one_run_needs_no_ray():
    shown = subprocess.run(
        [sys.executable, "-m", "workers", "--help"], capture_output=True, text=True, check=True
    )
    assert "RunSpec" in shown.stdout
