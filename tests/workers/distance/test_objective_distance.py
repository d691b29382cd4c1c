"""The training-free distance between objectives, on a stand-in pretrained for a few steps."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import make_run

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import resolve_data
from sweeps.errors import Impossible
from sweeps.sources.corpora import corpus_digest, standin_digest
from sweeps.spec import (
    DATA_FORMS,
    OBJECTIVE_DEFAULTS,
    OBJECTIVES,
    PRETRAINING_OBJECTIVES,
    BuiltinData,
    ModelSpec,
    Objective,
    Probe,
    StandinModel,
)
from workers.distance import gradient_groups
from workers.distance.gradient_groups import GradientGroups
from workers.distance.objective_distance import ObjectiveDistance
from workers.loading import load_model

CPU = torch.device("cpu")
DATA = {
    "clm": "python-docs",
    "mlm": "python-docs",
    "classification": "python-packages",
    "contrastive": "python-pairs",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("distance")


@pytest.fixture
def few_batches(monkeypatch):
    """A side ends after a few batches: what is asked is not how exact they are."""
    monkeypatch.setattr(gradient_groups, "MOST_BATCHES", 16)


def builtin(name):
    return BuiltinData(builtin=name, digest=corpus_digest(name))


def file_data(path, **columns):
    return resolve_data(DataEntry(file=path.name, columns=columns), ("text",), path.parent)


def run_of(kind="clm", family="gpt2", data=None, *, seed=0, **fields):
    options = OBJECTIVE_DEFAULTS[kind] | ({"labels": 6} if kind == "classification" else {})
    source = StandinModel(
        standin=family,
        layers=2,
        width=32,
        vocabulary=400,
        pretrain_steps=30,
        pretraining="mlm" if family == "bert" else "clm",
        digest=standin_digest(),
    )
    return make_run(
        model=ModelSpec(name=f"tiny-{family}", source=source),
        objective=Objective(name="mine", kind=kind, data=data or builtin(DATA[kind]), **options),
        probe=Probe(data=builtin("python-docs"), rows=32, sequence_length=16, seed=seed),
        **fields,
    )


def measured(run, cache):
    pretrained = load_model(run.model, cache, needs_head=True)
    distance = ObjectiveDistance(run, pretrained, cache, CPU)
    read = list(distance.measure())
    return distance.result(), read


@pytest.mark.parametrize(
    "batch_size", [4, *(pytest.param(each, marks=pytest.mark.slow) for each in (16, 64))]
)
def test_an_objective_is_no_distance_from_itself_at_any_batch_size(cache, batch_size):
    found = [
        measured(run_of(batch_size=batch_size, sequence_length=8, seed=seed), cache)[0]
        for seed in range(3)
    ]
    distances = np.array([one["distance"] for one in found])
    half = np.array([one["high"] - one["distance"] for one in found])
    assert abs(distances.mean()) < half.mean() / 3**0.5 + 0.02, distances
    assert sum(one["low"] <= 0 <= one["high"] for one in found) >= 2
    assert all(half < 0.6)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bert", "mlm"),
        pytest.param("gpt2", "contrastive", marks=pytest.mark.slow),
        pytest.param("bert", "classification", marks=pytest.mark.slow),
    ],
)
def test_another_objective_has_a_distance_and_one_on_a_common_text(cache, family, kind):
    data = builtin("python-source") if kind == "mlm" else None
    result, read = measured(run_of(kind, family, data, batch_size=8), cache)
    assert read == list(range(1, len(read) + 1))
    assert -0.5 < result["distance"] < 2.2
    assert result["low"] < result["distance"] < result["high"]
    assert len(result["cosines"]) == 2
    assert result["groups"] == 8
    assert all(batches % 8 == 0 for batches in result["batches"])
    common = result["common"]
    assert common["distance"] != result["distance"]
    if kind == "mlm":  # pretraining's own objective on the very text: no distance is left
        assert abs(common["distance"]) < 2 * (common["high"] - common["distance"])
    else:
        assert result["low"] > 0.2


KINDS = [kind for kind in OBJECTIVES if kind not in (*PRETRAINING_OBJECTIVES, *DATA)]
FORMS = [*((kind, {}) for kind in KINDS), ("sft", {"packing": "within"})]


@pytest.mark.usefixtures("few_batches")
@pytest.mark.parametrize(("kind", "options"), FORMS, ids=str)
def test_rows_of_every_kind_have_a_distance(cache, tmp_path, kind, options):
    sentence = "value item returned function called first without any argument"
    words = sentence.split()

    def cell(of, k, n):
        # What is rejected has something of its own: else no gradient is left of many pairs.
        text = n // 2 * "nothing " + " ".join(
            words[(3 * k + j * (1 + k % 3) + 5 * n) % len(words)] for j in range(6)
        )
        made = {"words": text.split(), "tags": [(k + j) % 2 for j in range(6)]}
        made |= {"label": k % 2, "labels": [k % 2], "number": k % 5 / 3}
        return made.get(of, text)

    cells = DATA_FORMS[kind][0].roles
    rows = [
        {role: cell(of, k, n) for n, (role, of) in enumerate(cells.items())} for k in range(150)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = resolve_data(DataEntry(file=path.name), tuple(cells), tmp_path)
    run = run_of(kind, data=data, sequence_length=36)
    objective = run.objective.model_copy(update=options)
    result, _ = measured(run.model_copy(update={"objective": objective}), cache)
    assert result["groups"] >= 2
    assert np.isfinite([result["distance"], result["common"]["distance"]]).all()


def test_batches_double_until_the_halves_agree(cache, monkeypatch):
    eager, _ = measured(run_of(batch_size=4), cache)
    assert all(batches in (8, 16, 32, 64, 128, 256) for batches in eager["batches"])
    for reliable, batches in zip(eager["reliability"], eager["batches"], strict=True):
        assert reliable >= 0.8 or batches == 256
    monkeypatch.setattr(gradient_groups, "RELIABLE", 1.1)
    monkeypatch.setattr(gradient_groups, "MOST_BATCHES", 64)
    greedy, _ = measured(run_of(batch_size=4), cache)
    assert greedy["batches"] == [64, 64]


def test_little_text_gives_fewer_batches_and_says_so(cache, tmp_path):
    file = tmp_path / "few.txt"
    file.write_text("\n".join(f"a line of words, number {k}, and no more" for k in range(60)))
    data = file_data(file)
    result, _ = measured(run_of("clm", data=data, batch_size=8), cache)
    assert 2 <= result["groups"] <= 8
    assert result["batches"][1] <= 16
    assert result["text_ended"][1] == (result["reliability"][1] < 0.8)
    assert result["noisy"] == (min(result["reliability"]) < 0.8)
    with pytest.raises(Impossible, match="fewer than a batch of 200"):
        measured(run_of("clm", data=data, batch_size=200), cache)
    lone = tmp_path / "one.txt"
    lone.write_text("one line")
    lone = file_data(lone)
    with pytest.raises(Impossible, match="too few rows"):
        measured(run_of("clm", data=lone), cache)


@pytest.mark.usefixtures("few_batches")
def test_sides_that_read_one_source_share_no_example(cache, monkeypatch):
    seen = {}
    before = GradientGroups.__init__

    def noted(self, name, objective, arrays, *rest):
        seen[name] = [tuple(row) for each in arrays for row in each["input_ids"].tolist()]
        before(self, name, objective, arrays, *rest)

    monkeypatch.setattr(GradientGroups, "__init__", noted)
    measured(run_of(sequence_length=32), cache)
    ours, theirs = seen["fine-tuning"], seen["common"]
    assert set(seen) == {"fine-tuning", "common"}, "one text is not read a third time"
    assert min(len(ours), len(theirs)) > 100
    assert len(set(ours) & set(theirs)) <= 0.02 * min(len(ours), len(theirs))


def test_the_gradient_of_a_group_is_that_of_its_batches_mean_losses(cache):
    run = run_of(batch_size=4)
    pretrained = load_model(run.model, cache, needs_head=True)
    distance = ObjectiveDistance(run, pretrained, cache, CPU)
    side, _ = distance._grouped()
    list(side.grow())
    list(side.grow())
    assert side.batches == 16
    objective, arrays = side._objective, side._arrays[2]
    model = objective.build_model(pretrained)
    seeded = run.model_copy(update={"seed": side._seeds[2]})
    losses = []
    for step in (1, 2):
        batch = objective.batch(arrays, seeded, step)
        losses.append(objective.loss_sum(model, batch) / objective.targets(batch))
    mean = sum(losses) / 2
    for block, gradient in zip(pretrained.blocks, side.means()[2], strict=True):
        direct = torch.autograd.grad(mean, list(block.parameters()), retain_graph=True)
        flat = torch.cat([part.flatten() for part in direct])
        torch.testing.assert_close(gradient, flat, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("few_batches")
@pytest.mark.parametrize("kind", ["clm", pytest.param("contrastive", marks=pytest.mark.slow)])
def test_micro_batches_change_nothing_and_weights_stay(cache, kind):
    run = run_of(kind, batch_size=4)
    small = run.model_copy(
        update={"execution": run.execution.model_copy(update={"micro_batch_size": 1})}
    )
    pretrained = load_model(run.model, cache, needs_head=True)
    before = {name: t.clone() for name, t in pretrained.language_model.state_dict().items()}
    whole, cut = (ObjectiveDistance(each, pretrained, cache, CPU) for each in (run, small))
    for one in (whole, cut):
        list(one.measure())
    assert cut.result()["distance"] == pytest.approx(whole.result()["distance"], abs=1e-3)
    after = pretrained.language_model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in pretrained.language_model.parameters())


def test_a_model_that_cannot_do_its_pretraining_objective_is_refused(cache):
    run = run_of("mlm", "bert")
    pretrained = load_model(run.model, cache, needs_head=True)
    pretrained.tokenizer.mask_token = None
    with pytest.raises(Impossible, match="no mask token"):
        ObjectiveDistance(run, replace(pretrained), cache, CPU)


@pytest.mark.usefixtures("few_batches")
def test_of_one_file_the_probe_reads_its_own_column(cache, tmp_path, monkeypatch):
    """Text and code in two columns: pretraining's gradient is of the text, wherever it lies."""
    file = tmp_path / "both.jsonl"
    rows = [
        {
            "doc": f"some words of a text, number {k:03d}, and more",
            "code": f"def f{k}(x): return {k} * x",
        }
        for k in range(600)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = {}
    before = GradientGroups.__init__

    def noted(self, name, objective, arrays, run, pretrained, *rest):
        decode = pretrained.tokenizer.decode
        seen[name] = " ".join(decode(row) for each in arrays for row in each["input_ids"])
        before(self, name, objective, arrays, run, pretrained, *rest)

    monkeypatch.setattr(GradientGroups, "__init__", noted)
    data = {column: file_data(file, text=column) for column in ("doc", "code")}
    run = run_of("clm", data=data["code"], batch_size=4)
    run = run.model_copy(update={"probe": run.probe.model_copy(update={"data": data["doc"]})})
    measured(run, cache)
    assert set(seen) == {"fine-tuning", "common", "pretraining"}
    assert "def" not in seen["pretraining"]
    assert "words" not in seen["common"] + seen["fine-tuning"]
    numbers = {
        name: set(re.findall(pattern, seen[name]))
        for name, pattern in (("pretraining", r"number (\d{3})\b"), ("fine-tuning", r"f(\d{3})\b"))
    }
    assert min(map(len, numbers.values())) > 50
    assert not numbers["pretraining"] & numbers["fine-tuning"], "halves share no row"
