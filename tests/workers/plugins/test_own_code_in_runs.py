"""Runs by a user's own control, objective, metric and model family, as workers train them."""

from __future__ import annotations

import json
import os
import shutil

import polars as pl
import pytest
import torch
from own_sweep import EXAMPLES, own_sweep, the_run

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.plugins import opened
from sweeps.plugins.bundle import bundle_of
from sweeps.plugins.executing import execute
from sweeps.sources.corpora import standin_digest
from sweeps.spec import StandinModel
from sweeps.store.store import Store
from tests.servers.forked_ranks import run_forked
from workers import __main__ as worker
from workers.models.standins import build_tokenizer
from workers.train import train

CPU = torch.device("cpu")


def trained(run, store):
    """Carry a run out; return how it ended."""
    return [progress.status for progress in train(run, store, CPU)][-1]


@pytest.fixture
def store(share_cache, tmp_path):
    found = Store.at(str(share_cache(tmp_path / "store")))
    found.identify()
    return found


def rows_of(run, store, table):
    return pl.read_parquet(store.run(run.run_id).parts(table))


@pytest.fixture
def forgotten(monkeypatch):
    """Have this process know no code, as a worker does that has just been started."""

    def forget():
        monkeypatch.setattr(opened, "_bundles", {})
        monkeypatch.setattr(opened, "_marks", {})

    return forget


def test_the_control_scales_what_it_says(tmp_path, store):
    run = the_run(tmp_path, EXAMPLES / "soft_clip.py", control="soft_clip: {strength: 0.5}")
    assert trained(run, store) == "finished"
    layers = rows_of(run, store, "layers")
    expected = 0.5 / (0.5 + layers["grad_norm"])
    assert (layers["coefficient"] - expected).abs().max() < 1e-6
    assert layers["coefficient"].max() < 0.999


RETURNING = """from sweeps.plugins import control
from workers.controls.layer_control import LayerControl

@control("odd")
class Odd(LayerControl):
    {flag} = True

    def {method}(self, *norms):
        return {value}
"""


@pytest.mark.parametrize(
    ("method", "flag"),
    [
        pytest.param("gradient_scale", "scales_gradients", marks=pytest.mark.slow),
        ("update_scale", "scales_updates"),
    ],
)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0.5", "returns a float"),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in (
                ("norms[0][:1]", "returns a tensor of shape (1,) and type float32"),
                ("norms[0] / 0", "returns a factor that is not finite"),
                ("norms[0].mean()", "returns a tensor of shape () and type float32"),
                ("norms[0].long()", "returns a tensor of shape (4,) and type int64"),
                ("norms[0] * float('nan')", "returns a factor that is not finite"),
            )
        ),
        ("norms[0] + {}['none']", "mine.py:9: KeyError: 'none'"),
    ],
)
def test_what_a_control_returns_is_one_factor_a_layer_or_an_error_that_names_it(
    tmp_path, store, method, flag, value, said
):
    text = RETURNING.format(method=method, flag=flag, value=value)
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    run = the_run(tmp_path, "mine.py", control="odd")
    with pytest.raises(UserError) as error:
        trained(run, store)
    assert said in str(error.value)
    assert f"{tmp_path}/mine.py:" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value).replace(str(tmp_path), "")) < 300
    (attempt,) = store.run(run.run_id).attempts()
    assert attempt["cause"] == "failed"
    assert attempt["error"].strip().endswith(str(error.value))


def test_the_objective_is_trained_and_the_metric_measured_at_every_layer(tmp_path, store):
    pairs = [{"anchor": f"one {n} two", "positive": f"{n} three"} for n in range(40)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    run = the_run(
        tmp_path,
        EXAMPLES / "cosine_margin.py",
        EXAMPLES / "neighbours.py",
        objective="pull: {kind: cosine_margin, data: {file: pairs.jsonl}, margin: 1.5}",
        metrics="[neighbours_lost: {k: 3}]",
    )
    assert trained(run, store) == "finished"
    losses = rows_of(run, store, "steps")["loss"]
    assert losses[-1] < losses[0]
    metrics = rows_of(run, store, "metrics")
    assert metrics["layer"].to_list() == [0, 1, 2]
    assert set(metrics["metric"]) == {"neighbours_lost"}
    assert metrics["value"].is_between(0, 1).all()
    assert metrics["value"].max() > 0


def test_a_family_of_ones_own_is_loaded_trained_and_probed(tmp_path, store):
    code = EXAMPLES / "causal_mean.py"
    module = execute(bundle_of(code))
    torch.manual_seed(0)
    config = module.CausalMeanConfig(vocab_size=400, hidden_size=32, num_hidden_layers=3)
    module.CausalMeanForCausalLM(config).save_pretrained(tmp_path / "mean")
    standin = StandinModel(
        standin="gpt2", width=32, vocabulary=400, pretraining="clm", digest=standin_digest()
    )
    build_tokenizer(standin).save_pretrained(tmp_path / "mean")
    path = own_sweep(tmp_path, code)
    entry = "{standin: opt, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 5}"
    path.write_text(path.read_text().replace(entry, "{folder: mean}"))
    run = read_sweep(path).runs[0]
    assert (run.model.source.family, run.model.source.pretraining) == ("causal_mean", "clm")
    assert trained(run, store) == "finished"
    profiles = rows_of(run, store, "profiles")
    assert profiles["layer"].to_list() == [0, 1, 2, 3]
    assert set(profiles["block_class"].drop_nulls()) == {"Block"}
    assert profiles["procrustes"].min() > 0


def test_a_worker_takes_the_code_from_the_store_alone(tmp_path, store, forgotten):
    code = shutil.copytree(EXAMPLES, tmp_path / "code")
    sweep = read_sweep(own_sweep(tmp_path, "code/soft_clip.py", control="soft_clip"))
    store.save_sweep(sweep)
    shutil.rmtree(code)
    forgotten()
    assert trained(sweep.runs[0], store) == "finished"
    forgotten()
    assert store.load_sweep("own").plugins == sweep.plugins


@pytest.mark.parametrize("harm", ["edited", pytest.param("torn", marks=pytest.mark.slow), "gone"])
def test_code_that_is_not_what_was_planned_is_refused_by_the_worker(
    tmp_path, store, forgotten, harm
):
    code = shutil.copytree(EXAMPLES, tmp_path / "code")
    sweep = read_sweep(own_sweep(tmp_path, "code/soft_clip.py", control="soft_clip"))
    store.save_sweep(sweep)
    kept = next((tmp_path / "store" / "plugins").iterdir())
    if harm == "edited":
        kept.write_text(kept.read_text().replace("strength /", "2 * strength /"))
    elif harm == "torn":
        kept.write_text(kept.read_text()[:-40])
    else:
        kept.unlink()
    # The file itself was edited, too: it is not what was planned with either.
    (code / "near_soft_clip.py").write_text("def bounded(norms, strength):\n    return 1\n")
    forgotten()
    with pytest.raises(UserError, match="the code that the run was planned with is not in the st"):
        trained(sweep.runs[0], store)
    with pytest.raises(UserError, match="is not in the store"):
        opened.require_at_hand(sweep.runs)
    if harm == "gone":
        store.save_sweep(sweep)  # as `depthsweep run` does with the file as it was
        assert trained(sweep.runs[0], store) == "finished"


def test_a_run_is_carried_out_by_the_workers_command_without_ray(tmp_path, store):
    path = own_sweep(tmp_path, EXAMPLES / "soft_clip.py", control="soft_clip")
    run = read_sweep(path).runs[0]
    (tmp_path / "run.json").write_text(run.model_dump_json())
    said = [str(tmp_path / "run.json"), "--store", str(store.root)]
    shown = tmp_path / "shown"
    # In a process that knows no code, as a worker does not.
    (code,) = run_forked(worker.__file__, said, [dict(os.environ)], str(shown), 300)
    assert code == 0, shown.read_text()
    assert f"run {run.run_id}: finished" in shown.read_text()


def test_a_metric_that_returns_no_number_is_named(tmp_path, store):
    (tmp_path / "mine.py").write_text(
        "from sweeps.plugins import metric\n\n\n@metric('both')\ndef both(x, y):\n    return x\n"
    )
    run = the_run(tmp_path, "mine.py", metrics="[both]")
    with pytest.raises(UserError, match=r"mine.py:4: metric 'both' returns .* one number"):
        trained(run, store)
