"""A point of a grid as a run: what is not said, what things are called, where a mistake is."""

import json
import shutil
from pathlib import Path

import pytest
from own_sweep import EXAMPLES, read, the_run

from sweeps.declaration.entries.sweep_spec import SweepSpec
from sweeps.declaration.expand import expand
from sweeps.declaration.yaml_source import YamlSource
from sweeps.errors import UserError
from sweeps.plugins.opened import bundles_of
from sweeps.spec import All, NoAdapter

SWEEP = """name: small
models:
  a: {{standin: gpt2}}
objectives:
  clm:
    data: {{builtin: python-source}}
    {own}
  texts: {{kind: clm, data: {{builtin: python-docs}}}}
{top}
probe: {{data: {{builtin: python-docs}}, rows: 16}}
defaults: {{steps: 4, batch_size: 2, sequence_length: 8, learning_rate: 1e-3, {defaults}}}
blocks:
- {{name: x, grid: {{model: [a], objective: [clm, texts], control: [standard], seed: [0]}}}}
"""


def swept(own="", top="", defaults=""):
    source = YamlSource.parse(SWEEP.format(own=own, top=top, defaults=defaults), "sweep.yaml")
    return expand(source.validate(SweepSpec), source).runs


PRETRAINED = """name: small
models: {{a: {{standin: gpt2}}}}
objectives: {{{objectives}}}
probe: {{data: {{builtin: python-docs}}, rows: 16}}
defaults: {{steps: 4, batch_size: 2, sequence_length: 8, learning_rate: 1e-3, control: standard}}
blocks:
- {{name: x, grid: {{model: [a], objective: [pretraining], seed: [0]}}}}
"""
ON = "data: {builtin: python-docs}"


@pytest.mark.parametrize(
    ("objectives", "found"),
    [
        (f"clm: {{{ON}}}, other: {{kind: clm, {ON}}}", "clm"),
        (f"mine: {{kind: clm, {ON}}}, mlm: {{{ON}}}", "mine"),
        (f"one: {{kind: clm, {ON}}}, two: {{kind: clm, {ON}}}", "one, two are of that kind; call"),
        (f"mlm: {{{ON}}}", "objective pretraining is clm for model 'a', and no objective here is"),
    ],
)
def test_pretraining_is_the_objective_of_the_kind_that_made_a_model(objectives, found):
    source = YamlSource.parse(PRETRAINED.format(objectives=objectives), "sweep.yaml")
    spec = source.validate(SweepSpec)
    if " " not in found:
        assert expand(spec, source).runs[0].objective.label == found
        return
    with pytest.raises(UserError, match=f"sweep.yaml:7: .*{found}"):
        expand(spec, source)


def test_what_nobody_says_is_the_usual():
    run = swept()[0]
    assert (run.record_every, run.precision, run.dropout) == (1, "fp32", False)
    assert (run.stop, run.evaluation, run.adapter, run.selection) == (
        *(None, None),
        *(NoAdapter(), All()),
    )
    said = swept(defaults="record_every: 2, precision: bf16, dropout: true")[0]
    assert (said.record_every, said.precision, said.dropout) == (2, "bf16", True)


def test_an_objective_has_a_name_where_that_is_not_its_kind():
    clm, texts = (run.objective for run in swept())
    assert (clm.kind, clm.name, clm.label) == ("clm", None, "clm")
    assert (texts.kind, texts.name, texts.label) == ("clm", "texts", "texts")


@pytest.mark.parametrize(
    ("said", "line"),
    [({"own": "evaluation: {split: test}"}, 7), ({"top": "evaluation: {split: test}"}, 9)],
)
def test_a_mistake_of_an_evaluation_is_in_the_line_that_says_it(said, line):
    with pytest.raises(UserError, match=rf"^sweep\.yaml:{line}: .*split does nothing with builtin"):
        swept(**said)


def test_decay_of_all_parameters_needs_a_decay():
    with pytest.raises(UserError, match="decay_all does nothing without weight_decay"):
        swept(defaults="decay_all: true")
    both, some = (
        swept(defaults=f"weight_decay: 0.1, decay_all: {said}")[0].optimizer.decay_all
        for said in ("true", "false")
    )
    assert (both, some) == (True, False)


# ------------------------------------------------------------------------------ own code
@pytest.fixture
def code(tmp_path):
    """The folder of the examples, edited: what another test has read is of another digest."""
    folder = shutil.copytree(EXAMPLES, tmp_path / "code")
    (folder / "near_soft_clip.py").write_text(
        (folder / "near_soft_clip.py").read_text() + "\n# of test_resolving\n"
    )
    return folder


@pytest.mark.usefixtures("code")
def test_the_code_that_runs_use_is_at_hand_and_named_by_the_sweep(tmp_path):
    sweep = read(tmp_path, "code/soft_clip.py", "code/neighbours.py", control="soft_clip")
    assert [Path(one.main).name for one in sweep.plugins] == ["soft_clip.py"]
    assert bundles_of(sweep.runs[0]) == list(sweep.plugins)


def test_an_objective_of_ones_own_is_called_by_its_kind_or_by_another_name(tmp_path, code):
    (code / "pairs.jsonl").write_text(json.dumps({"anchor": "a b", "positive": "c"}) + "\n")
    data = "data: {file: code/pairs.jsonl}"
    for said, name in (
        (f"cosine_margin: {{{data}}}", None),
        (f"drawn: {{kind: cosine_margin, {data}, options: {{margin: 0.5}}}}", "drawn"),
    ):
        run = the_run(tmp_path, "code/cosine_margin.py", objective=said)
        found = run.objective
        assert (found.kind, found.name, found.roles) == (
            *("cosine_margin", name),
            ("anchor", "positive"),
        )
        assert dict(found.options)["margin"] == (1.2 if name is None else 0.5)
