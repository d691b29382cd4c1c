"""Cached arrays are those of everything that decides them, and of nothing else."""

import errno
import importlib
import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import BertTokenizerLegacy, PreTrainedTokenizerFast

from sweeps.errors import UserError
from sweeps.sources.content import data_digest
from sweeps.spec import FileData, Objective
from workers.data import token_cache
from workers.data.token_cache import (
    CachedArrays,
    arrays_digest,
    cached_arrays,
    objective_arrays,
    tokenizer_digest,
)
from workers.objectives.registry import build_objective

KEY = {"made of": "this"}


def numbers(count=6):
    return {"input_ids": np.arange(count, dtype=np.int32)}


def test_arrays_are_made_again_by_another_version_of_the_code(tmp_path, monkeypatch):
    cached_arrays(tmp_path, KEY, lambda: numbers(6))
    assert len(cached_arrays(tmp_path, KEY, lambda: numbers(7))["input_ids"]) == 6
    monkeypatch.setattr(token_cache, "TOKENS_VERSION", "next")
    assert len(cached_arrays(tmp_path, KEY, lambda: numbers(7))["input_ids"]) == 7


def another_key(path):
    save_file(numbers(9), path, metadata={"key": json.dumps({"made of": "that"})})


def no_key(path):
    save_file(numbers(9), path)


def torn(path):
    path.write_bytes(path.read_bytes()[:-9])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [another_key, no_key, torn, empty])
def test_a_file_that_does_not_say_the_key_it_is_asked_for_by_is_made_again(tmp_path, harm):
    cached_arrays(tmp_path, KEY, numbers)
    (path,) = tmp_path.glob("tokens/*.safetensors")
    harm(path)
    assert cached_arrays(tmp_path, KEY, numbers)["input_ids"].tolist() == list(range(6))
    assert len(load_file(path)["input_ids"]) == 6


def test_an_entry_gives_back_what_was_put_in(tmp_path):
    entry = CachedArrays(tmp_path, "room", KEY)
    assert entry.read() is None
    entry.write({"a": np.ones((2, 3), np.float32)})
    assert entry.read()["a"].tolist() == [[1.0] * 3] * 2
    assert CachedArrays(tmp_path, "room", {"made of": "that"}).read() is None


def test_an_entry_waits_for_a_full_disk(tmp_path, monkeypatch):
    slept, write, tries = [], token_cache.write_arrays, []

    def full(path, *rest):
        write(path, *rest)
        tries.append(path)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sweeps.files.patience.time.sleep", slept.append)
    monkeypatch.setattr(token_cache, "write_arrays", full)
    assert cached_arrays(tmp_path, KEY, numbers)["input_ids"].tolist() == list(range(6))
    assert slept == [1, 2]
    assert [path.suffix for path in (tmp_path / "tokens").iterdir()] == [".safetensors"]


def copy_of(tokenizer, **changes):
    """Return a tokenizer of the same definition under other settings."""
    specials = {
        name: str(token)
        for name, token in tokenizer.special_tokens_map.items()
        if isinstance(token, str)
    }
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**specials, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"cls_token": "</s>"},
        {"sep_token": "<s>"},
        {"mask_token": "<pad>"},
        {"pad_token": "<mask>"},
        {"eos_token": "</s>"},
        {"bos_token": "<s>"},
        {"unk_token": "<pad>"},
        {"additional_special_tokens": ["Ġthe"]},
        {"truncation_side": "left"},
        {"split_special_tokens": True},
    ],
    ids=str,
)
def test_tokenizers_of_one_definition_and_other_special_tokens_are_two(tokenizers, change):
    plain = copy_of(tokenizers["mlm"])
    assert tokenizer_digest(plain) == tokenizer_digest(copy_of(tokenizers["mlm"]))
    assert tokenizer_digest(copy_of(tokenizers["mlm"], **change)) != tokenizer_digest(plain)


def test_a_token_that_is_added_makes_another_tokenizer(tokenizers):
    more = copy_of(tokenizers["clm"])
    more.add_tokens(["brandnew"])
    assert tokenizer_digest(more) != tokenizer_digest(copy_of(tokenizers["clm"]))


def test_two_vocabularies_of_one_size_make_two_tokenizers(tokenizers):
    kept = json.loads(tokenizers["clm"].backend_tokenizer.to_str())
    vocabulary = kept["model"]["vocab"]
    first, last = (
        max(vocabulary, key=lambda word, sign=sign: sign * vocabulary[word]) for sign in (-1, 1)
    )
    vocabulary[first], vocabulary[last] = vocabulary[last], vocabulary[first]
    backend = type(tokenizers["clm"].backend_tokenizer).from_str(json.dumps(kept))
    swapped = PreTrainedTokenizerFast(
        tokenizer_object=backend, **tokenizers["clm"].special_tokens_map
    )
    assert len(swapped) == len(tokenizers["clm"])
    assert tokenizer_digest(swapped) != tokenizer_digest(copy_of(tokenizers["clm"]))


def test_a_call_with_truncation_or_padding_changes_nothing(tokenizers):
    tokenizer = copy_of(tokenizers["mlm"])
    before = tokenizer_digest(tokenizer)
    tokenizer(["a text"], truncation=True, max_length=3, padding="max_length")
    assert tokenizer_digest(tokenizer) == before


def slow(folder, words):
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    return BertTokenizerLegacy(str(folder / "vocab.txt"))


def test_slow_tokenizers_are_told_apart_by_their_vocabulary(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two"]
    first = slow(tmp_path / "a", words)
    assert not first.is_fast
    assert tokenizer_digest(first) == tokenizer_digest(slow(tmp_path / "b", words))
    turned = slow(tmp_path / "c", [*words[:-2], "two", "one"])
    assert repr(turned).replace("/c/", "/a/") == repr(first)
    assert tokenizer_digest(turned) != tokenizer_digest(first)


def test_arrays_are_known_by_type_shape_and_values():
    a = np.arange(6, dtype=np.int32)
    others = [a.astype(np.int64), a.reshape(2, 3), a[::-1], a[:5]]
    assert len({arrays_digest(x) for x in (a, *others)}) == 5
    assert arrays_digest(a, a) != arrays_digest(a)
    assert arrays_digest(a[::-1]) == arrays_digest(a[::-1].copy())


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("import os and return the value\n" * 30)
    return path


def objective_of(path):
    data = FileData(file=str(path), digest=data_digest([path]))
    return build_objective(Objective(kind="clm", data=data))


def test_a_file_that_was_edited_is_refused_also_where_its_tokens_are_known(
    tokenizers, texts, tmp_path
):
    objective = objective_of(texts)
    first = objective_arrays(objective, tokenizers["clm"], 8, tmp_path)
    texts.write_text("other words\n" * 60)
    with pytest.raises(UserError, match=r"texts\.txt has other content"):
        objective_arrays(objective, tokenizers["clm"], 8, tmp_path)
    texts.unlink()  # not needed any more, and not there: what is known is right
    again = objective_arrays(objective, tokenizers["clm"], 8, tmp_path)
    assert (again["input_ids"] == first["input_ids"]).all()


def test_a_file_that_is_gone_before_it_was_read_is_named(tokenizers, texts, tmp_path):
    objective = objective_of(texts)
    texts.unlink()
    with pytest.raises(UserError, match=r"dataset texts\.txt: .* is not there"):
        objective_arrays(objective, tokenizers["clm"], 8, tmp_path)


def test_a_dataset_of_which_the_tokenizer_knows_no_word_is_refused(tmp_path, texts):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerLegacy(str(tmp_path / "vocab.txt"))
    with pytest.raises(UserError, match=r"dataset texts\.txt: .*knows no word.*\[UNK\]"):
        objective_arrays(objective_of(texts), tokenizer, 8, tmp_path)


@pytest.mark.parametrize(
    "change", [{"subword": "character"}, {"kinds": ["a", "b"]}, {"deep": {"x": 1}}]
)
def test_a_setting_of_any_type_tells_tokenizers_apart(tokenizers, change):
    plain, other = copy_of(tokenizers["clm"]), copy_of(tokenizers["clm"])
    other.init_kwargs |= change
    assert tokenizer_digest(other) != tokenizer_digest(plain)


def test_where_a_tokenizer_lies_does_not_tell_it_apart(tokenizers, tmp_path):
    plain, moved = copy_of(tokenizers["clm"]), copy_of(tokenizers["clm"])
    (tmp_path / "vocab.txt").write_text("a")
    moved.init_kwargs |= {"name_or_path": str(tmp_path), "vocab_file": str(tmp_path / "vocab.txt")}
    assert tokenizer_digest(moved) == tokenizer_digest(plain)


def test_code_that_came_with_a_model_tells_its_tokenizer_apart(tmp_path, monkeypatch):
    found = []
    for name, sign in (("one", "+"), ("two", "-")):
        package = tmp_path / name / "transformers_modules"
        package.mkdir(parents=True)
        (package / "my_tok.py").write_text(f"class Mine:\n    sign = '{sign}'\n")
        monkeypatch.syspath_prepend(str(tmp_path / name))
        for loaded in [each for each in sys.modules if each.startswith("transformers_modules")]:
            monkeypatch.delitem(sys.modules, loaded)
        kind = importlib.import_module("transformers_modules.my_tok").Mine
        found.append(token_cache._code(kind))
    assert found[0].keys() == found[1].keys() == {"my_tok.py"}
    assert found[0] != found[1]
    assert token_cache._code(PreTrainedTokenizerFast) == {}


def test_a_setting_as_long_as_a_chat_template_counts(tokenizers):
    first, second = copy_of(tokenizers["clm"]), copy_of(tokenizers["clm"])
    first.init_kwargs["chat_template"] = "{% for m in messages %}" * 100
    second.init_kwargs["chat_template"] = "{% for m in messages %}" * 101
    assert tokenizer_digest(first) != tokenizer_digest(second)


def test_what_lies_where_a_process_runs_does_not_tell_tokenizers_apart(
    tokenizers, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    made = {}
    for language in ("en", "de"):
        tokenizer = copy_of(tokenizers["clm"])
        tokenizer.init_kwargs["src_lang"] = language
        made[language] = tokenizer_digest(tokenizer)
        (tmp_path / language).mkdir()
        assert tokenizer_digest(tokenizer) == made[language]
    assert made["en"] != made["de"]


def test_a_slow_tokenizer_is_known_by_every_file_beside_it(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two"]
    for name, rule in (("a", "1"), ("b", "1"), ("c", "2")):
        slow(tmp_path / name, words).save_pretrained(tmp_path / name)
        (tmp_path / name / "rules.txt").write_text(rule)
        (tmp_path / name / "model.safetensors").write_text(name)
    found = [
        tokenizer_digest(BertTokenizerLegacy.from_pretrained(tmp_path / name)) for name in "abc"
    ]
    assert found[0] == found[1] != found[2]
