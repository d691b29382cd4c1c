"""The page on a study of one's own says what the specification has."""

import json
import re
from pathlib import Path

import pytest

from sweeps.declaration.entries.sweep_spec import SweepSpec
from sweeps.declaration.expand import read_sweep
from sweeps.declaration.yaml_source import YamlSource
from sweeps.spec import DATA_FORMS, OBJECTIVES, OPTIMIZERS, SCORES
from tests.shaped_folder import llama_config, shaped_folder

PAGE = Path("sweeps/declaration/README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.M | re.S)
SWEEP = {
    "name": "whole",
    "models": {"m": {"standin": "gpt2"}},
    "objectives": {"clm": {"data": {"builtin": "python-docs"}}},
    "probe": {"data": {"builtin": "python-docs"}},
    "blocks": [{"name": "all", "grid": {"model": ["m"]}}],
}


@pytest.mark.parametrize("example", [one for one in EXAMPLES if not one.startswith("plugins")])
def test_every_example_may_stand_in_a_sweep_file(example):
    said = YamlSource.parse(example, "README.md").value()
    whole = YamlSource.parse(json.dumps({**SWEEP, **said}), "README.md")
    spec = whole.validate(SweepSpec)
    assert set(said) <= spec.model_fields_set


def rows():
    """Yield kinds, roles (optional ones too) and scores of each row of the table of objectives."""
    for row in re.findall(r"^\| (`.*) \|$", PAGE, flags=re.M):
        kinds, roles, _, scores = (cell.strip() for cell in row.split("|"))
        for kind in re.findall(r"`(\w+)`", kinds):
            yield kind, set(re.findall(r"\w+", roles)) - {"or"}, re.findall(r"\w+", scores)


def test_the_table_has_every_objective_with_its_roles_and_scores():
    told = {kind: (roles, scores) for kind, roles, scores in rows()}
    assert sorted(told) == sorted(OBJECTIVES)
    for kind, (roles, scores) in told.items():
        assert roles == {role for form in DATA_FORMS[kind] for role in form.cells}, kind
        assert [one for one in scores if one != "BIO"] == list(SCORES.get(kind, ())), kind


def test_the_page_names_every_optimizer():
    assert [name for name in OPTIMIZERS if name not in PAGE] == []


def test_the_whole_file_stands_for_its_runs_beside_its_data(tmp_path):
    """Two models, two objectives, three controls and seeds; then what the second block leaves."""
    shaped_folder(tmp_path / "my-model", llama_config(4, 256, 1000, 512))
    (tmp_path / "reviews.jsonl").write_text(
        "".join(json.dumps({"review": f"text {k}", "stars": k % 2}) + "\n" for k in range(64))
    )
    (tmp_path / "probe.txt").write_text("a text of some words\n" * 64)
    (tmp_path / "mine.yaml").write_text(EXAMPLES[0], encoding="utf-8")
    runs = read_sweep(tmp_path / "mine.yaml").runs
    longer = [run for run in runs if run.steps == 2000]
    assert (len(runs) - len(longer), len(longer)) == (36, 9)
    assert {run.optimizer.eps for run in longer} == {1e-2}
