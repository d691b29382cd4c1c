"""What any page says to type is understood, and what it shows in Python runs as it stands."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from orchestrator.cli import COMMANDS, cli
from sweeps.declaration.expand import read_sweep
from tests.readme.demo_store import demo_folder, write_program
from tests.readme.page import PAGES, ROOT
from tests.shaped_folder import llama_config, shaped_folder

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.M | re.S)
TROUBLES = ROOT / "orchestrator" / "TROUBLESHOOTING.md"
CODE = "\n".join(
    path.read_text(encoding="utf-8")
    for floor in ("sweeps", "workers", "orchestrator", "cluster")
    for path in (ROOT / floor).rglob("*.py")
)


def named(page):
    return str(page.relative_to(ROOT))


def typed(page):
    """Yield each command line of depthsweep on a page: of its fences, and between backticks."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line
        for kind, body in FENCE.findall(text)
        if kind in ("", "sh")
        for line in body.splitlines()
    ]
    prose = FENCE.sub("", text)
    for line in [*lines, *re.findall(r"`(depthsweep [^`]+)`", prose)]:
        line = line.strip().split("  #")[0].split(" > ")[0].split(" | ")[0]
        output = re.search(r"\d s\b", line)  # what a benchmark printed of a command
        if line.startswith("depthsweep ") and "..." not in line and not output:
            yield page, shlex.split(line)[1:]


LINES = [
    pytest.param(words, id=f"{named(page)}: {' '.join(words)}")
    for page in PAGES
    if page.name != "CHANGELOG.md"
    for page, words in typed(page)
    if not words[0].startswith("-")
]


@pytest.mark.parametrize("words", LINES)
def test_every_command_line_of_a_page_is_understood(words):
    context = click.Context(cli)
    command = cli.get_command(context, words[0])
    if len(words) > 1:
        command.make_context(words[0], words[1:])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a store of the demo of its own, and `depthsweep` as a command."""
    folder = tmp_path_factory.mktemp("pages")
    demo = demo_folder(tmp_path_factory)
    shutil.copytree(demo / "store", folder / "store")
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "library").symlink_to(ROOT / "sweeps" / "library")
    return folder, write_program(folder / "bin")


def programs(page):
    return [
        body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == "python"
    ]


@pytest.mark.parametrize("page", [p for p in PAGES if programs(p)], ids=named)
def test_the_python_of_a_page_runs_as_it_stands(page, place):
    """In the order of the page, each part where the one before it left things."""
    folder, program = place
    path = f"{program}{os.pathsep}{os.environ['PATH']}"
    for body in programs(page):
        done = subprocess.run(
            [sys.executable, "-c", body],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{body}\n{done.stderr}"


def test_a_store_reads_the_same_with_and_without_depthsweep(place):
    """The page's own way to the rows that count, beside the tables' own."""
    from sweeps import open_store

    folder, _ = place
    (reader,) = [body for body in programs(ROOT / "sweeps/store/README.md") if "def parts" in body]
    here = Path.cwd()
    try:
        os.chdir(folder)
        scope = {}
        exec(reader, scope)
        rows = scope["duckdb"].read_parquet(list(scope["parts"]("profiles")), union_by_name=True)
        ours = open_store("store", sweep="demo").profiles().collect()
        assert rows.aggregate("count(*)").fetchall() == [(ours.height,)]
        assert set(scope["settings"]()["optimizer.learning_rate"]) == set(ours["learning_rate"])
    finally:
        os.chdir(here)


def rows_of(page):
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith(("| you see", "| word")):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_every_symptom_in_code_letters_is_one_that_the_program_shows():
    shown = [word for row in rows_of(TROUBLES) for word in re.findall(r"`([^`]+)`", row[0])]
    known = [
        word
        for word in shown
        if word in CODE or word.split()[0] in (*COMMANDS, "depthsweep:", "pip")
    ]
    assert len(shown) > 8
    assert sorted(set(shown) - set(known)) == []


def test_every_file_that_the_glossary_names_is_there_and_every_verdict_is_in_it():
    glossary = (ROOT / "sweeps" / "GLOSSARY.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:sweeps|workers)/[\w/]+\.py)`", glossary):
        assert (ROOT / path).is_file(), path
    for word in ("control", "Procrustes distance", "slope", "width", "centre", "dose", "condition"):
        assert re.search(rf"^\| {word} \|", glossary, flags=re.M), word


def test_words_that_the_readme_uses_are_explained_where_they_first_stand():
    """In italics, before any output in which they are columns."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for word in ("Procrustes distance", "control", "slope", "width", "centre", "condition"):
        first = re.search(rf"(?<!-)\b{word}\b", readme.partition("## Five questions")[2])
        assert first, word
        begins = readme.partition("## Five questions")[2][: first.start()]
        assert begins.endswith("*"), f"{word} first stands without its explanation"


@pytest.mark.parametrize(
    "profile", sorted(p.stem for p in (ROOT / "cluster/profiles").glob("*.yaml"))
)
def test_a_cluster_profile_has_its_section_which_says_whether_it_was_tried(profile):
    text = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {profile}\n(.*?)(?=^## )", text, flags=re.M | re.S)
    tried = re.findall(r"\*\*(Tried|Not tried)\*\*", section)
    assert len(tried) == 1
    assert tried == ["Not tried"] or re.search(r"\d+ \w+ 2026", section)


def test_the_readmes_ten_lines_are_ten_and_expand_over_data_of_ones_own(tmp_path):
    """With a model folder, and a file with the columns that the page says."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (text,) = [body for kind, body in FENCE.findall(readme) if kind == "yaml"]
    assert len(text.splitlines()) == 10
    shaped_folder(tmp_path / "my-model", llama_config(2, 128, 256, 256))
    rows = "".join(f"text number {k} of a few words,topic {k % 4}\n" for k in range(800))
    (tmp_path / "texts.csv").write_text(f"text,topic\n{rows}", encoding="utf-8")
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    sweep = read_sweep(tmp_path / "study.yaml")
    assert len(sweep.runs) == 2 * 2 * 3
    assert {run.optimizer.learning_rate for run in sweep.runs} == {2e-5, 1e-4}
