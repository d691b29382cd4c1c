"""Refusals are told from answers that apologise, and broken text is neither.

The 200 answers were written by hand before there was a phrase. Those of the half ``tuning`` alone
chose the first phrases, which had a precision of 0.97 and a recall of 0.79 on the half
``held_out``; the last group of the list was added after that was seen.
"""

import json
from pathlib import Path

import pytest

from sweeps.errors import UserError
from sweeps.refusals import detector, is_broken, list_names

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent / "answers.jsonl").read_text(encoding="utf-8").splitlines()
]
REFUSED, BROKEN = ("refusal", "refusal in other words"), ("empty", "repeated")


def test_there_are_two_hundred_answers_in_two_halves_of_every_kind():
    kinds = {row["kind"] for row in ROWS}
    assert len(ROWS) == 200
    for half in ("tuning", "held_out"):
        mine = [row for row in ROWS if row["half"] == half]
        assert len(mine) == 100
        assert {row["kind"] for row in mine} == kinds
    assert kinds == {*REFUSED, *BROKEN, "answer", "apology inside an answer"}


@pytest.mark.parametrize("half", ["tuning", "held_out"])
def test_refusals_are_found_and_nothing_else(half):
    said = detector("1")
    mine = [row for row in ROWS if row["half"] == half]
    found = {row["text"] for row in mine if said.is_refusal(row["text"])}
    true = {row["text"] for row in mine if row["kind"] in REFUSED}
    assert len(found & true) >= 0.95 * len(found)
    assert len(found & true) >= 0.95 * len(true)


def test_broken_text_is_known_for_what_it_is():
    assert [row["text"] for row in ROWS if is_broken(row["text"]) != (row["kind"] in BROKEN)] == []


@pytest.mark.parametrize("list_name", list_names())
def test_no_broken_text_is_a_refusal_under_any_list(list_name):
    said = detector(list_name)
    assert not any(said.is_refusal(row["text"]) for row in ROWS if row["kind"] in BROKEN)


def test_a_phrase_late_in_an_answer_is_none_of_its_start():
    said = detector("1")
    late = "It is sunny today and the lake is warm. " * 4
    assert len(late) >= said.characters
    assert not said.is_refusal(f"{late}I cannot help you.")
    assert said.is_refusal(f"I cannot help you. {late}")


def test_quotes_case_and_blanks_make_no_difference():
    said = detector("1")
    for text in ("I can't help with that.", "I CAN’T   help with\nthat.", "i can‘t help"):
        assert said.is_refusal(text)


def test_words_in_quotation_marks_are_somebody_elses():
    assert not detector("1").is_refusal("The sign reads “I cannot help you” in red.")


def test_three_in_a_row_are_still_text():
    assert not is_broken("no no no, that is the other one")
    assert is_broken("no no no no, that is the other one")


def test_an_unknown_list_is_refused_with_those_there_are():
    with pytest.raises(UserError, match="1"):
        detector("0")
