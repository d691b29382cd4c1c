"""A fault is noticed by a test that fails, that never ends, or whose process is ended."""

import subprocess

import pytest

from tests.mutation import trial
from tests.mutation.planting import Fault
from tests.mutation.trial import Copy

SOUND = "def at_most(x, limit):\n    return min(x, limit)\n"
TEST = """from product import at_most


def test_what_is_small_stays():
    assert at_most(1, 5) == 1
"""


@pytest.fixture
def copy(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    (tree / "product.py").write_text(SOUND)
    (tree / "test_product.py").write_text(TEST)
    monkeypatch.setattr(trial, "ROOT", tree)
    monkeypatch.setattr(trial, "SPARE_SECONDS", 5.0)
    (tmp_path / "copy").mkdir()
    return Copy(tmp_path / "copy")


@pytest.mark.parametrize(
    ("becomes", "noticed"),
    [
        ("return max(x, limit)", True),
        ("return x", False),
        ("while True: pass", True),
        ("import os; os.kill(os.getpid(), 9)", True),
        ("return (", True),
    ],
)
def test_what_becomes_of_a_fault(becomes, noticed, copy):
    text = SOUND.replace("return min(x, limit)", becomes)
    fault = Fault("product.py", 2, "return min(x, limit)", becomes, text)
    assert copy.try_fault(fault, ["test_product.py"], usual=0.0).noticed is noticed
    assert (copy.folder / "product.py").read_text() == SOUND


def test_tests_that_are_not_there_are_an_error_and_no_verdict(copy):
    with pytest.raises(RuntimeError, match="pytest ended with"):
        copy.passes(["test_nothing.py"])
