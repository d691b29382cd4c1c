"""How a sweep file says what a step is, and what is wrong with it."""

import json

import jsonschema
import pytest

from sweeps.declaration.entries.sweep_spec import SweepSpec, json_schema
from sweeps.declaration.expand import expand
from sweeps.declaration.yaml_source import YamlSource
from sweeps.errors import UserError
from sweeps.spec import EqualStep, LayerRates

MINIMAL = """
name: steps
models:
  a: {standin: gpt2}
objectives:
  clm: {data: {builtin: python-source}}
probe: {data: {builtin: python-docs}, rows: 16}
defaults: {batch_size: 2, sequence_length: 8, learning_rate: 1e-3}
"""
BLOCK = """
blocks:
  - name: one
    grid: {{model: [a], objective: [clm], seed: [4], {}}}
    set: {{steps: 20, {}}}
"""


def swept(text):
    source = YamlSource.parse(text, "sweep.yaml")
    return expand(source.validate(SweepSpec), source)


def runs(grid="", **settings):
    given = {"control": "standard", **settings}
    said = ", ".join(f"{key}: {json.dumps(value)}" for key, value in given.items())
    return swept(MINIMAL + BLOCK.format(grid, said)).runs


def test_an_optimizer_is_a_name_or_a_name_with_options():
    grid = "optimizer: [adamw, lion, {sgd: {momentum: 0.5}}, {lion: {betas: [0.8, 0.9]}}, muon]"
    found = [run.optimizer for run in runs(grid)]
    assert [one.rule for one in found] == ["adamw", "lion", "sgd", "lion", "muon"]
    assert [one.momentum for one in found] == [None, None, 0.5, None, 0.95]
    assert [one.betas for one in found][1:4] == [(0.9, 0.99), (0.9, 0.999), (0.8, 0.9)]
    assert runs()[0] == runs(optimizer="adamw")[0]


def test_a_point_is_excluded_by_its_optimizer():
    text = MINIMAL + BLOCK.format("optimizer: [lion, {sgd: {momentum: 0.5}}]", "control: standard")
    text += "    exclude: [{optimizer: {sgd: {momentum: 0.5}}}]\n"
    assert [run.optimizer.rule for run in swept(text).runs] == ["lion"]


def test_decay_leaves_out_biases_and_norms_unless_all_is_said_and_only_that_is_a_new_identity():
    assert not runs(weight_decay=0.1)[0].optimizer.decay_all
    every = runs(weight_decay=0.1, decay_all=True)[0]
    assert every.identity()["optimizer"] == {"learning_rate": 1e-3, "weight_decay": 0.1}
    ids = [run.run_id for run in runs("weight_decay: [0.0]")]
    for said in (True, False):
        assert [run.run_id for run in runs("weight_decay: [0.0]", decay_all=said)] == ids


def test_layer_rates_are_a_list_a_decay_or_rgn():
    grid = "control: [{layer_rates: [0, 0.5]}, {layer_rates: {decay: 0.9, scope: all}}, "
    grid += "{layer_rates: rgn}, {equal_step: {target: budget, unit: matrix}}]"
    text = MINIMAL + BLOCK.format(grid, "batch_size: 4")
    assert [run.control for run in swept(text).runs] == [
        LayerRates(rates=(0.0, 0.5)),
        LayerRates(decay=0.9, scope="all"),
        LayerRates(rates="rgn"),
        EqualStep(target="budget", unit="matrix"),
    ]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"optimizer": "lamb"}, "unknown optimizer 'lamb'"),
        ({"optimizer": {"sgd": {"momentun": 1}}}, "did you mean 'momentum'"),
        ({"optimizer": {"sgd": {"momentum": 2}}}, "momentum: input should be less than 1"),
        ({"optimizer": {"adafactor": {"eps": 1}}}, "of adafactor; it has none"),
        ({"optimizer": ["lion"]}, "an optimizer is a name, or one name with its options"),
        ({"optimizer": {"adamw": {"eps": 1e-8}}, "eps": 1e-6}, "eps is said by itself and as"),
        ({"optimizer": "lion", "eps": 1e-8}, "eps does nothing with lion"),
        ({"optimizer": "muon", "engine": "deepspeed"}, "needs whole matrices"),
        ({"optimizer": "adafactor", "processes": 2}, "needs whole matrices"),
        ({"optimizer": "muon", "offload": "optimizer"}, "needs whole matrices"),
        ({"decay_all": True}, "decay_all does nothing without weight_decay"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"schedule": "wsd", "decay_share": 0.5, "warmup_steps": 15}, "do not both fit into"),
        ({"control": {"layer_rates": [1, 1]}}, "does nothing; use standard"),
        ({"control": {"layer_rates": {"dekay": 0.5}}}, "did you mean 'decay'"),
        ({"control": {"equal_step": {"unit": "layer"}}}, "valid: block, matrix"),
        (
            {"control": {"equal_step": {"target": 0}}},
            "has to be positive, greater than 0; found 0",
        ),
        ({"control": {"equal_step": {"target": -1.5}}}, "greater than 0; found -1.5"),
        ({"control": {"equal_step": {"target": "bugdet"}}}, "did you mean 'budget'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(said, message):
    with pytest.raises(UserError, match=message) as raised:
        runs(**said)
    line = str(raised.value)
    assert "\n" not in line
    assert len(line) < 300
    assert line.startswith("sweep.yaml:")


@pytest.mark.parametrize(
    ("entry", "valid"),
    [
        ({"optimizer": "muon"}, True),
        ({"optimizer": {"sgd": {"momentum": 0.5}}}, True),
        ({"optimizer": {"sgd": {"eps": 0.5}}}, False),
        ({"optimizer": "of_a_plugin"}, True),
        ({"optimizer": {"of_a_plugin": {"anything": 1}}}, True),
        ({"optimizer": ["sgd"]}, False),
        ({"control": {"layer_rates": "rgn"}}, True),
        ({"control": {"layer_rates": [0.5, 1]}}, True),
        ({"control": {"equal_step": {"target": "budget", "unit": "matrix"}}}, True),
        ({"control": "layer_clip"}, False),
        ({"control": {"equal_step": {"unit": "layer"}}}, False),
    ],
)
def test_the_schema_for_editors_says_the_same(entry, valid):
    text = MINIMAL + BLOCK.format("control: [standard]", "")
    document = YamlSource.parse(text, "sweep.yaml").value()
    document["blocks"][0]["set"] = entry
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(document) == valid
