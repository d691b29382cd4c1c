import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_run import make_run
from transformers import AutoModelForCausalLM

from sweeps.declaration.entries.sweep_spec import ModelEntry
from sweeps.declaration.sources import resolve_model
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


def test_a_changed_byte_of_any_file_makes_another_model_or_none(saved, tmp_path):
    spec, _, folder = saved("gpt2")
    (folder / "merges.txt").write_text("a b\n")
    (folder / "added_tokens.json").write_text("{}")
    spec = spec_of(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert {"config.json", "model.safetensors", "tokenizer_config.json"} <= {f.name for f in files}
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(UserError, match=r"model mine: .*has other content than.*declared"):
            load_model(spec, tmp_path, needs_head=True)
        with contextlib.suppress(UserError):
            assert spec_of(folder).source.digest != spec.source.digest
        path.write_bytes(content)
    assert load_model(spec, tmp_path, needs_head=True).facts.layers == 3


def test_a_model_stays_as_it_was_loaded_when_its_file_is_written_to(saved, tmp_path):
    spec, model, folder = saved("gpt2")
    loaded = load_model(spec, tmp_path, needs_head=True).language_model
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.write(bytes(weights.stat().st_size))
    for mine, other in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_folder_that_is_replaced_while_it_is_loaded_is_refused(saved, tmp_path, monkeypatch):
    spec, _, folder = saved("gpt2")
    real = AutoModelForCausalLM.from_pretrained

    def from_pretrained(path, **options):
        loaded = real(path, **options)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes())
        return loaded

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(UserError, match="model mine: was changed while it was loaded"):
        load_model(spec, tmp_path, needs_head=True)


def with_config(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def weights_with(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def one_nan(tensors):
    tensors["transformer.h.1.mlp.c_fc.weight"][3, 5] = float("nan")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda f: with_config(f, n_embd=48),
            r"wte\.weight|has shape .* and config\.json makes it",
        ),
        (lambda f: with_config(f, n_layer=2), r"have transformer\.h\.2\..* no place"),
        (lambda f: with_config(f, n_layer=4), r"its checkpoint lacks transformer\.h\.3"),
        (lambda f: with_config(f, n_head=5), r"cannot be loaded from"),
        (lambda f: weights_with(f, one_nan), r"1 of 4096 values of transformer\.h\.1\.mlp\.c_fc"),
    ],
    ids=["width", "fewer blocks", "more blocks", "heads", "nan"],
)
def test_weights_that_do_not_fit_or_are_no_numbers_are_refused_in_a_line(
    saved, tmp_path, harm, said
):
    _, _, folder = saved("gpt2")
    harm(folder)
    with pytest.raises(UserError, match=f"model mine: .*({said})") as refused:
        load_model(spec_of(folder), tmp_path, needs_head=True)
    assert "\n" not in str(refused.value)


def test_a_stand_in_is_made_again_where_its_folder_is_of_something_else(tmp_path):
    spec = make_run().model
    load_model(spec, tmp_path, needs_head=True)
    (record,) = tmp_path.glob("standins/*/standin.json")
    made = record.read_text()
    record.write_text("{}")
    load_model(spec, tmp_path, needs_head=True)
    assert record.read_text() == made


def test_a_stand_in_of_another_corpus_is_refused(tmp_path):
    spec = make_run().model
    source = spec.source.model_copy(update={"digest": "0" * 64})
    with pytest.raises(UserError, match=r"corpus python-docs, .* has other content"):
        load_model(ModelSpec(name="tiny", source=source), tmp_path, needs_head=True)


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
