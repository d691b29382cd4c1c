"""What the README says to type is what there is, and what it shows is what comes out."""

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from orchestrator.cli import COMMANDS
from sweeps import open_store
from sweeps.declaration.entries.sweep_spec import SweepSpec
from sweeps.declaration.expand import read_sweep
from sweeps.declaration.yaml_source import YamlSource
from tests.readme.__main__ import PICTURE, pages
from tests.readme.demo_store import demo_folder
from tests.readme.page import PAGES, ROOT, blocks, differences, made_again, output_of
from tests.readme.picture import photograph, words_in, words_of

README = Path("README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.M | re.S)
MADE = [
    pytest.param(command, shown, id=f"{page.relative_to(ROOT)}: {command}")
    for page in pages()
    for command, shown in blocks(page.read_text(encoding="utf-8"))
]
DEMO = "sweeps/library/demo.yaml"
# Commands that a table of the README shows stand between backticks.
SPANS = re.findall(r"`(depthsweep [^`]*)`", README)


def test_the_readme_shows_every_command():
    missing = [name for name in COMMANDS if f"depthsweep {name}" not in README]
    assert missing == []


def test_every_make_target_of_the_readme_exists():
    makefile = Path("Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`?make ([a-z-]+)", "\n".join([*SPANS, *code(README)])))
    assert targets, "the page names none: is it read as it is written?"
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def flat(text):
    """Return a text without its ends of lines."""
    return " ".join(text.split())


def code(text):
    """Return what stands in fences and between backticks."""
    return [*[body for _, body in FENCES], *re.findall(r"`([^`\n]+)`", text)]


def test_the_sweep_file_of_the_readme_is_valid():
    (text,) = [block for kind, block in FENCES if kind == "yaml"]
    spec = YamlSource.parse(text, "README.md").validate(SweepSpec)
    assert spec.name == yaml.safe_load(text)["name"]


def test_one_run_needs_no_ray():
    shown = subprocess.run(
        [sys.executable, "-m", "workers", "--help"], capture_output=True, text=True, check=True
    )
    assert "RunSpec" in shown.stdout


def test_the_readme_is_for_newcomers_short():
    assert len(README.splitlines()) < 200


# ------------------------------------------------------------------------------ what comes out
@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A folder with a finished demo: that of `make demo`, or of this test run."""
    return demo_folder(tmp_path_factory)


@pytest.mark.parametrize(("command", "shown"), MADE)
def test_an_output_on_a_page_is_what_its_command_says(command, shown, demo):
    assert differences(shown, output_of(command, demo)) == []


def test_the_picture_is_of_the_profiles_that_there_are(demo):
    assert differences(words_in(PICTURE), output_of(words_of("demo"), demo)) == []


def test_what_the_readme_says_of_the_demo_is_so(demo):
    claim = (
        "Later blocks change more in every model, in BERT less so than noise alone would have it"
    )
    assert claim in flat(README)
    page = json.loads(output_of("depthsweep profile demo --json", demo))
    slopes = {(row["model"], row["control"]): row for row in page["conditions"]}
    assert min(row["slope_low"] for row in slopes.values()) > 0, slopes
    models = {run.model.name for run in read_sweep(DEMO).runs}
    assert {model for model, _ in slopes} == models
    over = {model: slopes[model, "standard"]["slope_beyond_propagation_high"] for model in models}
    assert {model for model, high in over.items() if high < 0} == {"tiny-bert"}, over
    assert f"then {len(read_sweep(DEMO).runs)} runs" in README


def test_what_the_readme_says_of_the_steps_is_so(demo):
    """How far blocks move under standard training: the farthest over the nearest, by model."""
    ratio = pl.col("update_norm") / pl.col("weight_norm")
    moved = (
        open_store(str(demo / "store"), sweep="demo")
        .layers()
        .filter(pl.col("layer").is_between(1, pl.col("model_layers")), control="standard")
        .group_by("model", "run_id", "layer")
        .agg((ratio**2).sum().sqrt().alias("moved"))
        .group_by("model", "run_id")
        .agg((pl.col("moved").max() / pl.col("moved").min()).alias("dose"))
        .group_by("model")
        .agg(pl.col("dose").mean())
        .collect()
    )
    doses = dict(moved.rows())
    assert "some blocks two or three times as far as others" in flat(README)
    much = {model: dose for model, dose in doses.items() if dose > 1.5}
    assert set(much) == {"tiny-bert", "tiny-gpt2", "tiny-pythia"}, doses
    assert 1.5 < min(much.values()) < max(much.values()) < 4, much
    page = json.loads(output_of("depthsweep compare demo --json", demo))
    verdicts = {row["model"]: row["verdict"] for row in page["conditions"]}
    assert verdicts == {
        model: "persists" if model in much else "idle" for model in ("minilm", *doses)
    }


def test_every_figure_that_a_run_gave_stands_in_an_output():
    """Prose goes stale unseen: it has no decimals, percentages or other figures of runs."""
    prose = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
    named = r"arXiv\s+\d+\.\d+|Python\s+3\.\d+\s+to\s+3\.\d+|Apache-2\.0|\d+\.\dB\s+parameters"
    prose = re.sub(rf"`[^`]*`|\(http[^)]*\)|{named}", "", prose)
    assert re.findall(r"\d+\.\d+|\d+ ?%", prose) == []


SHOWN = "tiny  clm  3  ▄▅▅▆▇█  0.167 [0.160, 0.172]  97 %  persists   took 12 s, 3.5 min\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.167", "0.101"),
        ("0.167", "-0.167"),
        ("97 %", "43 %"),
        ("97 %", "97"),
        ("clm  3", "clm  2"),
        ("persists", "collapses"),
        ("tiny", "tiny new"),
        ("▄▅▅▆▇█", "█▅▅▆▇█"),
        ("▄▅▅▆▇█", "▄▅▆▇█"),
        ("persists", "persists !"),
    ],
)
def test_a_stale_output_is_noticed(old, new):
    assert differences(SHOWN, SHOWN.replace(old, new, 1)) != []
    assert differences(SHOWN.replace(old, new, 1), SHOWN) != []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.167", "0.169"),
        ("97 %", "98 %"),
        ("12 s, 3.5 min", "240 s, 1 min"),
        ("▄▅▅▆▇█", "▄▅▆▆▇█"),
        ("  persists", " persists"),
    ],
)
def test_what_another_processor_may_change_is_let_be(old, new):
    assert differences(SHOWN, SHOWN.replace(old, new, 1)) == []


def test_a_page_is_made_again_block_by_block():
    page = "# A\n<!-- made by: depthsweep one -->\n```\nold\n```\ntext\n```\nnot made\n```\n"
    again = made_again(page, lambda command: f"{command} said\n")
    assert again == page.replace("old", "depthsweep one said")
    assert list(blocks(again)) == [("depthsweep one", "depthsweep one said\n")]


def test_without_a_browser_no_picture_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr("tests.readme.picture.CHROMIUM", None)
    assert not photograph("demo", tmp_path, tmp_path / "picture.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_program_that_a_page_names_is_there(page):
    named = re.findall(r"python\s+-m\s+((?:tests|workers)[\w.]*)", page.read_text(encoding="utf-8"))
    missing = [
        name
        for name in named
        if not (ROOT / f"{name.replace('.', '/')}.py").is_file()
        and not (ROOT / name.replace(".", "/") / "__main__.py").is_file()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    near = [link for link in links if "://" not in link]
    assert [link for link in near if not (page.parent / link).exists()] == []
