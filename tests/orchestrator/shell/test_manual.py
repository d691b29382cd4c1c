"""The manual page has every command and option, and groff reads it without a complaint."""

import shutil
import subprocess
import sys

import click
import pytest

from orchestrator.cli import COMMANDS, cli

MAIN = [sys.executable, "-m", "orchestrator"]


@pytest.fixture(scope="module")
def page():
    return subprocess.run([*MAIN, "man"], capture_output=True, text=True, check=True).stdout


def options():
    """Yield each command's name with the words of each of its options."""
    for name in COMMANDS:
        context = click.Context(cli)
        for parameter in cli.get_command(context, name).params:
            if isinstance(parameter, click.Option):
                yield from ((name, word) for word in parameter.opts)


def test_every_command_and_option_has_its_place(page):
    parts = {part.split(" ", 1)[0]: part for part in page.split("\n.SS ")[1:]}
    missing = [name for name in COMMANDS if name not in parts]
    missing += [
        f"{name} {word}"
        for name, word in options()
        if word.replace("-", r"\-") not in parts.get(name, "")
    ]
    assert missing == []
    assert "cluster render" in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff here")
def test_groff_sets_it_without_a_warning(page):
    words = ["groff", "-man", "-Tutf8", "-ww", "-P-c"]
    done = subprocess.run(words, input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    shown = " ".join(done.stdout.split())
    assert "depthsweep - Fine-tuning studies in the hundreds of runs" in shown
    assert "A mistake of yours; one line says what to do." in shown
