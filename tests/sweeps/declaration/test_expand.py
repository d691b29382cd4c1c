from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.declaration.entries.sweep_spec import SweepSpec
from sweeps.declaration.expand import expand, read_sweep
from sweeps.declaration.yaml_source import YamlSource
from sweeps.errors import UserError
from sweeps.sources.catalog import CATALOG, FAMILIES
from sweeps.spec import HubData, HubModel

LIBRARY = sorted(
    path
    for path in Path("sweeps/library").glob("*.yaml")
    if "\nblocks:" in path.read_text(encoding="utf-8")
)

MINIMAL = """
name: small
models:
  a: {standin: gpt2}
  b: {standin: opt}
objectives:
  clm: {data: {builtin: python-source}}
probe: {data: {builtin: python-docs}, rows: 16}
defaults: {steps: 2, batch_size: 2, sequence_length: 8, learning_rate: 1e-3}
"""


def swept(text: str):
    source = YamlSource.parse(text, "sweep.yaml")
    return expand(source.validate(SweepSpec), source)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_every_committed_sweep_expands_to_distinct_runs(path):
    sweep = read_sweep(path)
    assert sweep.runs
    assert len(sweep.by_id) == len(sweep.runs)
    assert sweep.name == path.stem


def test_paper_has_the_split_of_the_definitions():
    runs = read_sweep("sweeps/library/paper.yaml").runs
    assert len({run.run_id for run in runs}) == 240
    assert Counter(run.control.kind for run in runs) == {"standard": 190, "equal_step": 50}
    by_size = Counter()
    for run in runs:
        parameters = next(m for m in CATALOG.values() if m.hub == run.model.source.hub).parameters
        size = "large" if parameters > 5e9 else "mid" if parameters > 1e9 else "small"
        by_size[size, run.control.kind] += 1
    assert by_size == {
        ("small", "standard"): 180,
        ("mid", "standard"): 8,
        ("large", "standard"): 2,
        ("small", "equal_step"): 45,
        ("mid", "equal_step"): 4,
        ("large", "equal_step"): 1,
    }
    assert {run.model.name for run in runs} == set(CATALOG)


def test_paper_pins_every_download():
    runs = read_sweep("sweeps/library/paper.yaml").runs
    assert all(isinstance(run.model.source, HubModel) for run in runs)
    data = {run.objective.kind: run.objective.data for run in runs}
    assert all(isinstance(source, HubData) for source in data.values())
    labels = {kind: source.label for kind, source in data.items()}
    assert labels == {
        "clm": "wikitext/wikitext-2-raw-v1",
        "mlm": "wikitext/wikitext-2-raw-v1",
        "classification": "glue/sst2",
        "contrastive": "all-nli/pair",
    }


def test_pretraining_means_each_familys_own_objective():
    for run in read_sweep("sweeps/library/paper.yaml").runs:
        if run.objective.kind in ("clm", "mlm"):
            known = next(m for m in CATALOG.values() if m.hub == run.model.source.hub)
            assert run.objective.kind == FAMILIES[known.family].pretraining


@given(
    models=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2, unique=True),
    controls=st.lists(
        st.sampled_from(["standard", "equal_step", "{layer_clip: {max_norm: 1.0}}"]),
        min_size=1,
        unique=True,
    ),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True),
)
def test_a_grid_is_the_product_of_its_lists_in_a_fixed_order(models, controls, seeds):
    block = (
        f"blocks: [{{name: x, grid: {{seed: {seeds}, control: [{', '.join(controls)}],"
        f" model: [{', '.join(models)}], objective: [clm]}}}}]"
    )
    sweep = swept(MINIMAL + block)
    points = [(run.model.name, run.control.kind, run.seed) for run in sweep.runs]
    kinds = [control.strip("{").split(":")[0] for control in controls]
    assert points == [(m, c, s) for m in models for c in kinds for s in seeds]


def test_exclude_takes_points_out_and_include_puts_points_in():
    sweep = swept(
        MINIMAL
        + """
blocks:
  - name: x
    grid: {model: [a, b], objective: [clm], control: [standard], seed: [0, 1]}
    exclude: [{model: b, seed: 1}]
    include: [{model: b, objective: clm, control: equal_step, seed: 7, learning_rate: 2e-3}]
"""
    )
    points = [(run.model.name, run.control.kind, run.seed) for run in sweep.runs]
    assert points == [
        ("a", "standard", 0),
        ("a", "standard", 1),
        ("b", "standard", 0),
        ("b", "equal_step", 7),
    ]
    assert sweep.runs[-1].optimizer.learning_rate == 2e-3
    assert sweep.runs[0].optimizer.learning_rate == 1e-3


GRID = "grid: {model: [a], objective: [clm], control: [standard], seed: [0]}"


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (f"blocks: [{{name: x, {GRID}}}, {{name: y, {GRID}}}]", "repeats a run of block 'x'"),
        ("blocks: [{name: x}]", "'x' is empty"),
        (f"blocks: [{{name: x, {GRID}, exclude: [{{model: a}}]}}]", "'x' is empty"),
        (f"blocks: [{{name: x, {GRID}, exclude: [{{model: b}}]}}]", "matches no point"),
        (f"blocks: [{{name: x, {GRID}, set: {{seed: 3}}}}]", "both grid and set"),
        ("blocks: [{name: x, grid: {model: [a], seed: [0]}}]", "does not say objective, control"),
    ],
)
def test_a_block_that_cannot_be_meant_is_refused_with_its_line(blocks, message):
    with pytest.raises(UserError, match=message) as refused:
        swept(MINIMAL + blocks)
    assert str(refused.value).startswith("sweep.yaml:10:")


BLOCKS = f"blocks: [{{name: all, {GRID}}}]\n"


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        ("", ["propagation"]),
        ("measurements: []\n", []),
        ("measurements: [objective_distance]\n", ["objective_distance"]),
        (
            "measurements: [objective_distance, propagation, propagation]\n",
            ["propagation", "objective_distance"],
        ),
    ],
)
def test_a_sweep_says_what_it_wants_measured_and_its_runs_keep_their_ids(said, kinds):
    sweep = swept(MINIMAL + said + BLOCKS)
    assert [one.kind for one in sweep.to_measure] == kinds
    assert sweep.runs == swept(MINIMAL + BLOCKS).runs


def test_a_measurement_that_does_not_exist_is_refused_with_its_line():
    with pytest.raises(UserError, match=r"sweep\.yaml:\d+.*propagation"):
        swept(MINIMAL + "measurements: [propagations]\n" + BLOCKS)


def test_the_studys_sweeps_want_both_kinds():
    for name in ("paper", "replica"):
        sweep = read_sweep(f"sweeps/library/{name}.yaml")
        kinds = Counter(one.kind for one in sweep.to_measure)
        pairs = {(run.model.name, run.objective.label, run.batch_size) for run in sweep.runs}
        assert kinds["propagation"] == len({run.model.name for run in sweep.runs}) == 15
        assert kinds["objective_distance"] >= len({pair[:2] for pair in pairs})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("models:\n  unused: {folder: nowhere}\n", r"unused.*nowhere is not a folder"),
        (
            "objectives:\n  unused: {kind: clm, data: {builtin: nothing}}\n",
            r"unknown builtin dataset 'nothing'",
        ),
    ],
)
def test_what_no_block_uses_is_looked_at_too(entry, message):
    section, line = entry.split("\n")[:2]
    text = MINIMAL.replace(f"{section}\n", f"{section}\n{line}\n")
    assert swept(f"{MINIMAL}blocks: [{{name: x, {GRID}}}]").runs
    with pytest.raises(UserError, match=message):
        swept(f"{text}blocks: [{{name: x, {GRID}}}]")


def test_a_label_that_is_named_twice_is_refused():
    data = f"{{hub: somebody/texts, revision: '{'0' * 40}'}}"
    entry = f"  two: {{kind: classification, labels: [a, b, a], data: {data}}}\n"
    text = MINIMAL.replace("objectives:\n", f"objectives:\n{entry}")
    with pytest.raises(UserError, match="a label is named twice"):
        swept(f"{text}blocks: [{{name: x, {GRID}}}]")
