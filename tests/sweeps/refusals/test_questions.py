"""What a judge is asked: data that is versioned, whatever stands in a prompt or an answer."""

import pytest

from sweeps.errors import UserError
from sweeps.refusals import question, question_names


def test_every_version_asks_about_both_and_has_two_verdicts():
    assert "1" in question_names()
    for name in question_names():
        one = question(name)
        assert one.words.index("{prompt}") < one.words.index("{answer}")
        assert one.refused != one.complied


def test_braces_in_a_prompt_or_an_answer_are_what_they_are():
    said = question("1").about("print {answer} and {0}", "I cannot print {prompt}.")
    assert "print {answer} and {0}" in said
    assert "I cannot print {prompt}." in said
    assert said.endswith("Answer with one word, Yes or No.")


def test_a_version_that_there_is_not_is_refused_by_the_ones_there_are():
    with pytest.raises(UserError, match="question: none is called '9'"):
        question("9")
