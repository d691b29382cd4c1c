"""Each seed's faults are judged, and one that two seeds take is tried once."""

import json

import pytest

from tests.mutation import __main__ as judging
from tests.mutation.subjects import Subject
from tests.mutation.trial import Verdict

FIRST = "def least(x):\n    if x < 1:\n        return 2\n    return x + 3\n"
SECOND = "def go(x):\n    x.go()\n"


class Copied:
    """Stands for a copy of the tree in which a fault is noticed where ``noticed`` says so."""

    def __init__(self, noticed):
        self.noticed, self.tried = noticed, []

    def survey(self, *_):
        return 0.0

    def try_fault(self, fault):
        self.tried.append(fault)
        return Verdict(fault, self.noticed(fault), seconds=0.1)

    def close(self):
        """Nothing was started."""


@pytest.fixture
def judged(monkeypatch, capsys, tmp_path):
    """Return how ``python -m tests.mutation`` ends, what it prints and writes, what it tried."""
    (tmp_path / "first.py").write_text(FIRST)
    (tmp_path / "second.py").write_text(SECOND)
    monkeypatch.setattr(judging, "ROOT", tmp_path)
    subject = Subject("part", ("first.py", "second.py"), ("tests/mutation/test_judging.py",))
    monkeypatch.setattr(judging, "SUBJECTS", (subject,))

    def run(noticed, *words):
        copied = Copied(noticed)
        monkeypatch.setattr(judging, "Copy", lambda _: copied)
        place = tmp_path / "found.json"
        code = judging.main([*words, "--workers", "1", "-o", str(place)])
        return code, capsys.readouterr().out, json.loads(place.read_text()), copied.tried

    return run


def always(_):
    return True


def test_a_fault_that_two_seeds_take_is_tried_once_and_counts_for_both(judged):
    code, said, found, tried = judged(always, "--seed", "1", "2", "--each", "9")
    assert (code, len(tried)) == (0, len(set(tried)))
    assert [one["seed"] for one in found] == [1, 2]
    assert [len(one["noticed"]) for one in found] == [4, 4], "one a line"
    assert 4 <= len(tried) < 8, "the call can be left out only"
    assert said.count("100%") == 2


def test_survivors_are_named_once_and_one_part_under_the_limit_fails(judged):
    code, said, found, _ = judged(lambda fault: fault.file != "second.py", "--seed", "1", "2")
    assert code == 1
    assert [one["share"] for one in found] == [0.75, 0.75]
    assert [[row["line"] for row in one["survived"]] for one in found] == [[2], [2]]
    assert said.count("part: second.py:2 (no test calls it)\n  - x.go()\n  + pass\n") == 1


def test_what_is_called_equivalent_is_neither_tried_nor_counted(judged, monkeypatch):
    monkeypatch.setattr(judging, "_equivalent", lambda: {("second.py", "x.go()", "pass")})
    code, said, (found,), tried = judged(always)
    assert [fault.file for fault in tried] == ["first.py"] * 3
    assert [row["file"] for row in found["equivalent"]] == ["second.py"]
    assert (code, found["share"]) == (0, 1.0)
    assert "3 noticed,  0 survived,  1 equivalent" in said
