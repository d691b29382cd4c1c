"""The page on a study of one's own says what the specification has."""

import json
import re
from pathlib import Path

import pytest

from sweeps.declaration.entries.sweep_spec import SweepSpec
from sweeps.declaration.yaml_source import YamlSource
from sweeps.spec import DATA_FORMS, OBJECTIVES, OPTIMIZERS, SCORES

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
