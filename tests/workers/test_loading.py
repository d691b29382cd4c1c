import pytest
import torch
from transformers import AutoModelForCausalLM

from sweeps.declaration.sources import resolve_model
from sweeps.declaration.sweep_spec import ModelEntry
from sweeps.errors import UserError
from sweeps.spec import HubModel, ModelSpec
from workers.loading import load_model


def spec_of(folder, **entry):
    source = resolve_model("mine", {"mine": ModelEntry(folder=str(folder), **entry)}, folder)
    return ModelSpec(name="mine", source=source)


@pytest.fixture
def saved(make_language_model, tmp_path):
    def save(family, **shape):
        model, tokenizer = make_language_model(family, **shape)
        folder = tmp_path / family
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return spec_of(folder), model, folder

    return save


def test_a_folder_is_loaded_in_float32_without_dropout(family, saved, tmp_path):
    spec, model, _ = saved(family)
    loaded = load_model(spec, tmp_path, needs_head=True)
    for mine, other in zip(loaded.language_model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, other)
    ids = torch.arange(8)[None]
    loaded.language_model.train()
    with torch.no_grad():
        first = loaded.language_model(input_ids=ids).logits
        again = loaded.language_model(input_ids=ids).logits
        loaded.language_model.eval()
        evaluated = loaded.language_model(input_ids=ids).logits
    assert torch.equal(first, again)
    torch.testing.assert_close(first, evaluated, rtol=1e-5, atol=1e-6)


def test_the_facts_of_a_model_are_measured(saved, tmp_path):
    spec, model, _ = saved("codegen", layers=4, width=48)
    facts = load_model(spec, tmp_path, needs_head=True).facts
    assert (facts.family, facts.kind, facts.block) == ("codegen", "decoder", "parallel")
    assert (facts.layers, facts.width) == (4, 48)
    assert facts.parameters == sum(p.numel() for p in model.parameters())


def test_a_missing_head_is_refused_where_it_is_needed_and_ignored_elsewhere(saved, tmp_path):
    _, model, folder = saved("bert")
    model.base_model.save_pretrained(folder)
    spec = spec_of(folder)
    with pytest.raises(UserError, match=r"lacks cls\.predictions.*not pretrained for this"):
        load_model(spec, tmp_path, needs_head=True)
    assert load_model(spec, tmp_path, needs_head=False).facts.layers == 3


def test_pickled_weights_are_loaded_only_when_the_spec_says_so(saved, tmp_path):
    _, model, folder = saved("gpt2")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    accepted = spec_of(folder, pickled_weights=True)
    source = accepted.source.model_copy(update={"pickled_weights": False})
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(ModelSpec(name="mine", source=source), tmp_path, needs_head=True)
    assert load_model(accepted, tmp_path, needs_head=True).facts.family == "gpt2"


def test_a_broken_checkpoint_names_the_model_and_the_folder(saved, tmp_path):
    _, _, folder = saved("gpt2")
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text()[:100])
    with pytest.raises(UserError, match=f"model mine: cannot be loaded from {folder}"):
        load_model(spec_of(folder), tmp_path, needs_head=True)


def test_a_hub_model_is_asked_for_at_its_commit_with_safetensors_and_no_code(
    saved, tmp_path, monkeypatch
):
    _, model, folder = saved("gpt2")
    asked = []
    fetched = []
    real = AutoModelForCausalLM.from_pretrained

    def from_pretrained(path, **options):
        asked.append(options)
        return real(path, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)

    def snapshot_download(repository, **options):
        fetched.append((repository, options))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    source = HubModel(hub="owner/name", revision="a" * 40, pretraining="clm")
    loaded = load_model(ModelSpec(name="mine", source=source), tmp_path, needs_head=True)
    assert torch.equal(loaded.language_model.lm_head.weight, model.lm_head.weight)
    (options,) = asked
    ((repository, download),) = fetched
    assert (repository, download["revision"]) == ("owner/name", "a" * 40)
    assert not any("bin" in pattern for pattern in download["allow_patterns"])
    assert options["use_safetensors"] is True
    assert options["trust_remote_code"] is False
