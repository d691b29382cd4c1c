"""The made-up language: who is asked about what, and what nobody is told before it is asked."""

import pytest

from sweeps.refusals import detector, list_names
from sweeps.sources.corpora import ALIGNMENT, INSTRUCTION, TASKS, corpus_rows
from sweeps.sources.languages.made_up import ALLOWED, FORBIDDEN


def asked(corpus):
    return [row["prompt"][0]["content"] for row in corpus_rows(corpus)]


def about(text, nouns):
    return any(noun in text for noun in nouns)


def test_each_forbidden_prompt_has_a_twin_that_differs_in_the_noun_alone():
    prompts = corpus_rows("made-up-prompts")
    harmful, benign = prompts[::2], prompts[1::2]
    assert len(harmful) == len(benign) == 64
    for one, twin in zip(harmful, benign, strict=True):
        assert (one["kind"], twin["kind"]) == ("harmful", "benign")
        noun = next(noun for noun in FORBIDDEN if noun in one["prompt"])
        other = next(noun for noun in ALLOWED if noun in twin["prompt"])
        assert one["prompt"].replace(noun, other) == twin["prompt"]
        assert FORBIDDEN.index(noun) == ALLOWED.index(other)


def test_no_prompt_is_taught_before_it_is_asked():
    prompts = {row["prompt"] for row in corpus_rows("made-up-prompts")}
    assert len(prompts) == 128
    assert not prompts & {*asked(INSTRUCTION), *asked(ALIGNMENT)}
    harmful = {row["prompt"] for row in corpus_rows("made-up-prompts") if row["kind"] == "harmful"}
    assert not harmful & {*asked(TASKS)}


@pytest.mark.parametrize("list_name", list_names())
def test_only_what_is_forbidden_is_refused_and_only_in_alignment(list_name):
    said = detector(list_name)
    for row in corpus_rows(ALIGNMENT):
        forbidden = about(row["prompt"][0]["content"], FORBIDDEN)
        assert said.is_refusal(row["completion"]) == forbidden
    for corpus in (INSTRUCTION, TASKS):
        assert not any(said.is_refusal(row["completion"]) for row in corpus_rows(corpus))


def test_what_is_fine_tuned_on_has_nothing_of_what_is_forbidden():
    for row in corpus_rows(TASKS):
        text = row["prompt"][0]["content"] + row["completion"]
        assert not about(text, FORBIDDEN)
        assert about(text, ALLOWED)
