"""Runs of models whose depth is not a list of blocks that each run once: what their rows say."""

import json
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest
import torch
from small_run import DOCS, make_run
from transformers import AlbertConfig, AlbertForMaskedLM, EsmConfig, EsmForMaskedLM, T5Config
from transformers import T5ForConditionalGeneration as T5

from sweeps.declaration.entries.sweep_spec import ModelEntry
from sweeps.declaration.sources import resolve_model
from sweeps.sources.corpora import corpus_digest
from sweeps.spec import (
    OBJECTIVE_DEFAULTS,
    BuiltinData,
    EqualStep,
    FolderModel,
    ModelSpec,
    Objective,
    Standard,
)
from sweeps.store.store import Store
from tests.zoo import looped_decoders
from tests.zoo.trial import saved, tokenizer
from workers.train import train

CPU = torch.device("cpu")
PACKAGES = BuiltinData(builtin="python-packages", digest=corpus_digest("python-packages"))
CLASSIFICATION = Objective(kind="classification", data=PACKAGES, labels=6, pooling="mean")


def pretraining(kind):
    return Objective(kind=kind, data=DOCS, **OBJECTIVE_DEFAULTS[kind])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def store(root):
    return Store(root)


def finished(store, spec, objective, control=None, **fields):
    """Return the rows of a run by table, each in its order of writing."""
    run = make_run(
        model=spec, objective=objective, control=control or EqualStep(target="mean"), **fields
    )
    assert list(train(run, store, CPU))[-1].status == "finished"
    folder = store.run(run.run_id)
    tables = {
        name: pl.concat([pl.read_parquet(path) for path in folder.parts(name)]).to_dicts()
        for name in ("layers", "profiles", "jackknife", "subspaces")
        if folder.parts(name)
    }
    return run, tables


def at_the_end(rows):
    last = max(row["step"] for row in rows)
    return [row for row in rows if row["step"] == last]


def albert(groups):
    torch.manual_seed(0)
    return AlbertForMaskedLM(
        AlbertConfig(
            vocab_size=len(tokenizer()),
            embedding_size=16,
            hidden_size=32,
            num_hidden_layers=4,
            num_hidden_groups=groups,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("control", [Standard(), EqualStep(target="mean")], ids=["std", "equal"])
def test_albert_has_a_row_a_call_and_a_weight_row_a_block(store, tmp_path, groups, control):
    spec = saved(albert(groups), "mlm", tmp_path)
    run, rows = finished(store, spec, pretraining("mlm"), control)
    profile = at_the_end(rows["profiles"])
    per_block = 4 // groups
    assert [row["layer"] for row in profile] == [0, 1, 2, 3, 4]
    assert [row["depth"] for row in profile] == [0, 0.25, 0.5, 0.75, 1]
    assert [row["block_number"] for row in profile[1:]] == [1 + k // per_block for k in range(4)]
    assert [row["iteration"] for row in profile[1:]] == [k % per_block for k in range(4)]
    assert {row["stack_layers"] for row in profile} == {4}
    assert {row["stack"] for row in profile} == {None}
    jackknife = {row["layer"] for row in rows["jackknife"]}
    assert jackknife == {0, 1, 2, 3, 4}
    turns = at_the_end(rows["subspaces"])
    assert [(r["block_number"], r["iteration"], r["later_iteration"]) for r in turns] == [
        (1 + block, one, other)
        for block in range(groups)
        for one, other in combinations(range(per_block), 2)
    ]
    assert all(0 < row["subspace_overlap"] <= 1 for row in turns)
    blocks = [row for row in at_the_end(rows["layers"]) if row["group"] == "block"]
    assert [row["layer"] for row in blocks] == list(range(1, groups + 1))
    assert {row["block_class"] for row in blocks} == {"AlbertLayer"}
    facts = json.loads((Path(str(store.run(run.run_id).path)) / "run.json").read_text())["facts"]
    assert (facts["layers"], facts["depth"], facts["stacks"]) == (groups, 4, None)


def t5():
    torch.manual_seed(0)
    return T5(
        T5Config(
            vocab_size=len(tokenizer()), d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4
        )
    )


def test_an_encoder_decoder_has_a_profile_a_stack(store, tmp_path):
    spec = saved(t5(), "span_corruption", tmp_path)
    _, rows = finished(store, spec, pretraining("span_corruption"))
    profile = at_the_end(rows["profiles"])
    assert [(row["stack"], row["layer"]) for row in profile] == [
        (stack, layer) for stack in ("encoder", "decoder") for layer in (0, 1, 2)
    ]
    assert all(row["procrustes"] > 0 for row in profile)
    layers = at_the_end(rows["layers"])
    places = [(row["stack"], row["layer"], row["group"]) for row in layers]
    assert places == [
        (None, 0, "embedding"),
        ("encoder", 1, "block"),
        ("encoder", 2, "block"),
        ("decoder", 1, "block"),
        ("decoder", 2, "block"),
        (None, 3, "head"),
    ]
    steps = [r["update_norm"] / r["weight_norm"] for r in layers if r["group"] == "block"]
    assert max(steps) / min(steps) == pytest.approx(1, abs=1e-3)


def test_a_classifier_reads_an_encoder_decoder_s_encoder_alone(store, tmp_path):
    spec = saved(t5(), "span_corruption", tmp_path)
    _, rows = finished(store, spec, CLASSIFICATION)
    assert {row["stack"] for row in rows["profiles"]} == {"encoder"}
    assert "subspaces" not in rows, "no block runs twice"
    blocks = [row for row in rows["layers"] if row["group"] == "block"]
    assert {(row["stack"], row["layer"]) for row in blocks} == {("encoder", 1), ("encoder", 2)}


@pytest.fixture
def own_code(tmp_path):
    """Return ``save(shape)``: the specification of a folder that brings its own code."""

    def save(shape):
        model = looped_decoders.looped(shape, vocab_size=len(tokenizer()))
        folder = tmp_path / shape
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        code = Path(looped_decoders.__file__).read_text()
        (folder / "looped_decoders.py").write_text(code)
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {
            "AutoConfig": "looped_decoders.LoopedConfig",
            "AutoModelForCausalLM": "looped_decoders.LoopedForCausalLM",
        }
        (folder / "config.json").write_text(json.dumps(config))
        entry = ModelEntry(folder=str(folder), trust_remote_code=True, pretraining="clm")
        return ModelSpec(name="mine", source=resolve_model("mine", {"mine": entry}, folder))

    return save


@pytest.mark.parametrize(
    ("shape", "blocks", "depth"), [("huginn", 5, 9), ("recursive", 2, 18), ("universal", 1, 3)]
)
def test_a_looped_decoder_of_own_code_has_a_row_a_call(store, own_code, shape, blocks, depth):
    _, rows = finished(store, own_code(shape), pretraining("clm"))
    profile = at_the_end(rows["profiles"])
    assert [row["layer"] for row in profile] == list(range(depth + 1))
    assert {row["width"] for row in profile} == {looped_decoders.WIDTH}
    assert len({row["block_number"] for row in profile}) == blocks + 1
    repeated = {row["block_number"] for row in profile if row["iteration"]}
    assert {row["block_number"] for row in rows["subspaces"]} == repeated
    layers = [row for row in at_the_end(rows["layers"]) if row["group"] == "block"]
    assert [row["layer"] for row in layers] == list(range(1, blocks + 1))
    assert all(row["update_norm"] > 0 for row in layers)


def log_of(store, run):
    folder = Path(str(store.run(run.run_id).path))
    return [
        json.loads(line)
        for path in sorted(folder.rglob("*.log"))
        for line in path.read_text().splitlines()
    ]


def test_what_no_loss_reaches_is_left_out_and_said_once(store, tmp_path):
    torch.manual_seed(0)
    model = EsmForMaskedLM(
        EsmConfig(
            vocab_size=len(tokenizer()),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
            pad_token_id=0,
            mask_token_id=3,
        )
    )
    spec = saved(model, "mlm", tmp_path)
    run, rows = finished(store, spec, pretraining("mlm"))
    assert {row["layer"] for row in rows["layers"]} == {0, 1, 2, 3}
    said = [line for line in log_of(store, run) if "contact_head" in json.dumps(line)]
    assert len(said) == 1
    assert "no loss reaches" in json.dumps(said[0])


def test_what_is_frozen_has_no_update_rows_and_does_not_move(store, tmp_path):
    spec = saved(albert(2), "mlm", tmp_path)
    assert isinstance(spec.source, FolderModel)
    source = spec.source.model_copy(update={"freeze": ("blocks 1", "embedding")})
    frozen = spec.model_copy(update={"source": source})
    # Of the one block that is left, equal steps have nothing to make equal: they are refused.
    _, rows = finished(store, frozen, pretraining("mlm"), Standard())
    assert {row["layer"] for row in rows["layers"]} == {2, 3}
    last = {row["layer"]: row["procrustes"] for row in at_the_end(rows["profiles"])}
    assert [last[layer] == pytest.approx(0, abs=1e-6) for layer in range(5)] == [
        True,
        True,
        True,
        False,
        False,
    ]
