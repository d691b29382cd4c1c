"""A fault is noticed by a test that fails, that never ends, or whose process is ended."""

import subprocess

import pytest

from tests.mutation import trial
from tests.mutation.planting import Fault
from tests.mutation.trial import Copy

SOUND = """LIMIT = 5


def at_most(x, limit):
    return min(x, limit)


def unasked():
    return 1


def remembered(start=2):
    return start
"""
TEST = """import pytest
import product


@pytest.fixture(scope="session")
def kept():
    return product.remembered()


def test_what_is_small_stays():
    assert product.at_most(1, product.LIMIT) == 1


def test_a_fixture_is_made(kept):
    assert kept


def test_and_used_again(kept):
    assert kept == 2
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    tree = tmp_path_factory.mktemp("tree")
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    (tree / "product.py").write_text(SOUND)
    (tree / "test_product.py").write_text(TEST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "ROOT", tree)
        patch.setattr(trial, "SPARE_SECONDS", 2.0)
        patch.setattr(trial, "WALL", 3.0)
        copy = Copy(tmp_path_factory.mktemp("copy"))
        copy.survey(["test_product.py"], ["product.py"])
        yield copy
        copy.close()


@pytest.mark.parametrize(
    ("was", "becomes", "noticed", "asked"),
    [
        ("return min(x, limit)", "return max(x, limit)", True, 1),
        ("return min(x, limit)", "return x", False, 1),
        ("return min(x, limit)", "while True: pass", True, 1),
        ("return min(x, limit)", "import time; time.sleep(600)", True, 1),
        ("return min(x, limit)", "import os; os.kill(os.getpid(), 9)", True, 1),
        ("return min(x, limit)", "return (", True, 1),
        ("return 1", "return 2", False, 0),
        ("return start", "return start + 1", True, 2),
        ("LIMIT = 5", "LIMIT = 0", True, 3),
        ("def remembered(start=2):", "def remembered(start=3):", True, 3),
    ],
)
def test_what_becomes_of_a_fault(was, becomes, noticed, asked, copy):
    line = SOUND.splitlines().index(was if was in SOUND.splitlines() else f"    {was}") + 1
    verdict = copy.try_fault(Fault("product.py", line, was, becomes, SOUND.replace(was, becomes)))
    assert (verdict.noticed, verdict.asked) == (noticed, asked)
    assert (copy.folder / "product.py").read_text() == SOUND


def test_the_test_that_noticed_is_named(copy):
    text = SOUND.replace("min(", "max(")
    verdict = copy.try_fault(Fault("product.py", 5, "return min", "return max", text))
    assert verdict.by == "test_product.py::test_what_is_small_stays"


@pytest.mark.usefixtures("copy")
def test_tests_that_are_not_there_are_an_error_and_no_verdict(tmp_path):
    other = Copy(tmp_path)
    with pytest.raises(RuntimeError, match="without a fault pytest ends with 4"):
        other.survey(["test_nothing.py"], ["product.py"])
    other.close()
