"""The README followed literally, line by line, from a fresh clone in an empty folder.

What stands in its fences of kind ``sh`` is typed into one shell, as a newcomer types it; then each
command that it shows with an output. Only REPOSITORY is replaced, by this checkout's own address.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme.demo_store import write_program
from tests.readme.page import ROOT, blocks, differences

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```", README, flags=re.M | re.S)
MARK = "##### "


def lines_to_type():
    """Return the lines of the README's shell, without comments, in their order."""
    text = "".join(SHELL).replace("REPOSITORY", str(ROOT))
    return [line.split("  #")[0].rstrip() for line in text.splitlines() if line.strip()]


def in_order(shown):
    """Return the lines of the shell with the commands of outputs between them, as the page has
    them: what follows the installation, then each output, then data of one's own, then a look."""
    first, *rest = [len(body.splitlines()) for body in SHELL]
    assert len(rest) == 1
    assert README.index(SHELL[0]) < README.index(shown[0][0]) < README.index(SHELL[1])
    lines = lines_to_type()
    script = lines[:first]
    for k, (command, _) in enumerate(shown):
        script += [f"echo '{MARK}{k}'", command]
    script += [f"echo '{MARK}own'", *lines[first:], f"echo '{MARK}end'"]
    return [*script, "depthsweep status demo", "depthsweep report demo"]


def test_the_lines_begin_with_a_clone_and_an_activation_and_end_with_data_of_ones_own():
    lines = lines_to_type()
    assert lines[0] == f"git clone {ROOT} depthsweep && cd depthsweep"
    assert lines[1:3] == ["make demo", "source .venv/bin/activate"]
    assert any(line.startswith("depthsweep init ") for line in lines)
    assert lines[-1].startswith("depthsweep run ")


def test_no_line_needs_what_is_not_there_after_a_clone():
    """Each file that a line reads is in the repository, or was made by a line before it."""
    made = set()
    for line in lines_to_type()[3:]:
        made |= set(re.findall(r"(?:> |-o )(\S+)", line))
        for word in re.findall(r"[\w*./-]+\.(?:md|txt|yaml|csv)", line):
            assert word in made or list(ROOT.glob(word)), line


def test_the_lines_for_data_of_ones_own_work_up_to_the_run_itself(tmp_path):
    """From a folder with the repository's pages; what would be run is planned in its place."""
    for page in [ROOT / "README.md", *ROOT.glob("*/README.md")]:
        (tmp_path / page.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(page, tmp_path / page.relative_to(ROOT))
    path = f"{write_program(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"
    *before, run = lines_to_type()[3:]
    done = subprocess.run(
        ["bash", "--norc", "-euo", "pipefail", "-c", "\n".join([*before, f"{run} --dry-run"])],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "1  new" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there is no repository to clone")
def test_a_newcomer_comes_to_the_outputs_that_the_readme_shows(tmp_path):
    """Installs everything anew: it needs a package index."""
    own = str(Path(sys.executable).parent)
    path = [place for place in os.environ["PATH"].split(os.pathsep) if place != own]
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "RAY_ADDRESS", "HF_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"PATH": os.pathsep.join(path), "HOME": str(tmp_path / "home")}
    environment |= {"COLUMNS": "80", "NO_COLOR": "1"}
    (tmp_path / "home").mkdir()
    shown = [pair for pair in blocks(README) if pair[0].startswith("depthsweep ")]
    script = ["set -euo pipefail", *in_order(shown)]
    typed = subprocess.run(
        ["bash", "--norc"],
        input="\n".join(script) + "\n",
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert typed.returncode == 0, typed.stdout[-2000:] + typed.stderr[-2000:]
    said = re.split(rf"^{MARK}\w+\n", typed.stdout, flags=re.M)
    assert len(said) == len(shown) + 3
    for (command, output), now in zip(shown, said[1:-2], strict=True):
        assert differences(output, now) == [], command
    assert "1 finished" in said[-2], "the run of one's own data"
    assert "demo: 30 runs, 30 finished" in said[-1]
    assert (tmp_path / "depthsweep" / "report.html").is_file()
