"""``plan`` of models in no catalogue: sized by their configuration, or refused in one line."""

import json

import pytest
from click.testing import CliRunner
from shaped_folder import llama_config, llama_tensors, shaped_folder, write_holes

from orchestrator.cli import cli
from orchestrator.sizing import tracer, traces
from sweeps.errors import UserError

REVISION = "a" * 40
SWEEP = """
name: sized
models:
  {model}
objectives: {{clm: {{data: {{builtin: python-docs}}}}}}
probe: {{data: {{builtin: python-docs}}, rows: 64, sequence_length: 32}}
defaults:
  {{steps: 10, batch_size: {batch}, sequence_length: 32, learning_rate: 1e-5, precision: bf16}}
blocks: [{{name: all, grid: {{model: [sized], objective: [clm], control: [standard], seed: [0]}}}}]
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))


def written(tmp_path, model, batch=4):
    path = tmp_path / "sized.yaml"
    path.write_text(SWEEP.format(model=model, batch=batch))
    return path


def plan(tmp_path, model, *arguments, **changes):
    path = written(tmp_path, model, **changes)
    result = CliRunner().invoke(cli, ["plan", str(path), *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def hub_model(tmp_path, config):
    """Put a configuration where the hub's client keeps what it has fetched."""
    repository = tmp_path / "hf" / "hub" / "models--someone--sized"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    (snapshot / "config.json").write_text(json.dumps(config))
    return f"sized: {{hub: someone/sized, revision: {REVISION}, pretraining: clm}}"


def placement(text):
    (found,) = json.loads(text)["placement"].values()
    return found


@pytest.mark.slow
def test_a_folder_of_seven_thousand_million_parameters_goes_through_deepspeed(tmp_path):
    parameters = shaped_folder(tmp_path / "model", llama_config(32, 4096, 32000, 11008))
    model = f"sized: {{folder: {tmp_path / 'model'}}}"
    text = plan(tmp_path, model, "--gpus", "1x141@256", "--json")
    assert json.loads(text)["runs"][0]["parameters"] == parameters > 6.5e9
    found = placement(text)
    assert found["execution"]["engine"] == "deepspeed"
    assert (found["execution"]["zero_stage"], found["execution"]["processes"]) == (2, 1)
    # 2 bytes a parameter of weights, 4 each of gradients and masters, 8 of moments.
    assert 18 * parameters < found["allocated"] < 19 * parameters


def test_a_hub_model_whose_configuration_is_at_hand_is_placed(tmp_path):
    model = hub_model(tmp_path, llama_config(3, 256, 1000, 512))
    text = plan(tmp_path, model, "--gpus", "2x24", "--json", batch=8)
    found = placement(text)
    assert (found["execution"]["engine"], found["execution"]["processes"]) == ("plain", 1)
    parameters = json.loads(text)["runs"][0]["parameters"]
    assert parameters == 2 * 1000 * 256 + 3 * (4 * 256**2 + 3 * 256 * 512 + 2 * 256) + 256
    shown = plan(tmp_path, model, "--gpus", "2x24", batch=8)
    assert "plain, micro-batch 8" in shown
    assert "2.5M" in shown


@pytest.mark.slow
def test_a_hub_model_whose_configuration_is_not_at_hand_is_checked_when_it_is_loaded(tmp_path):
    model = f"sized: {{hub: someone/else, revision: {REVISION}, pretraining: clm}}"
    assert "size unknown before loading" in plan(tmp_path, model, "--gpus", "2x24")


def test_a_model_that_cannot_be_trained_so_is_refused_in_one_line(tmp_path):
    config = {**llama_config(3, 256, 1000, 512), "model_type": "llamas-of-tomorrow"}
    with pytest.raises(UserError, match=r"config\.json names no model") as refused:
        plan(tmp_path, hub_model(tmp_path, config))
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("command", ["run", "submit"])
def test_what_the_code_of_a_model_refuses_is_refused_before_anything_starts(tmp_path, command):
    config = {**llama_config(3, 256, 1000, 512), "model_type": "llamas-of-tomorrow"}
    path, store = written(tmp_path, hub_model(tmp_path, config)), tmp_path / "store"
    where = ["--cluster", "local"] if command == "submit" else []
    result = CliRunner().invoke(cli, [command, str(path), "--store", str(store), *where])
    assert "config.json names no model" in str(result.exception)
    assert isinstance(result.exception, UserError)
    assert not list(store.glob("runs/*"))


@pytest.mark.slow
def test_a_folder_that_its_runs_would_refuse_is_refused_by_a_plan(tmp_path):
    config = llama_config(2, 256, 1000, 512)
    shaped_folder(tmp_path / "model", config)
    shapes = llama_tensors(config)
    del shapes["model.layers.1.mlp.up_proj.weight"]
    write_holes(tmp_path / "model" / "model.safetensors", shapes)
    with pytest.raises(UserError, match=r"model sized: its checkpoint lacks model\.layers\.1\.mlp"):
        plan(tmp_path, f"sized: {{folder: {tmp_path / 'model'}}}")


def test_a_folder_that_was_found_whole_is_not_read_by_the_next_plan(tmp_path, monkeypatch):
    shaped_folder(tmp_path / "model", llama_config(2, 256, 1000, 512))
    plan(tmp_path, f"sized: {{folder: {tmp_path / 'model'}}}")
    monkeypatch.setattr(traces, "_known", {})
    monkeypatch.setattr(tracer.Tracer, "ask", lambda *_, **__: pytest.fail("asked again"))
    plan(tmp_path, f"sized: {{folder: {tmp_path / 'model'}}}")
