"""Faults as they are planted: one changed line, the same for the same seed."""

import ast

import pytest
import yaml
from cosmic_ray.mutating import mutate_code

from tests.mutation.__main__ import EQUIVALENT
from tests.mutation.planting import RemoveStatement, faults_of, sample
from tests.mutation.subjects import ROOT, SUBJECTS

TEXT = '''"""Docs 1 + 1."""
from a import b


def guarded(x: int | None = 3) -> list[int]:
    """Return 2 of it."""
    if x is None:
        raise ValueError("no x, but 5")
    x.count += 1
    check(x)
    return [1, x]


def paired(a, b):
    return list(zip(a, b, strict=True))


@dataclass(frozen=True)
class Kept:
    x: int | None
'''


def test_a_fault_changes_one_line_and_can_be_read_by_python():
    faults = sample({"f.py": TEXT}, 50, seed=1)
    assert {fault.line for fault in faults} == {5, 7, 8, 9, 10, 11}
    for fault in faults:
        ast.parse(fault.text)
        before, after = TEXT.splitlines(), fault.text.splitlines()
        changed = [k for k, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        assert changed == [fault.line - 1]
        assert (before[changed[0]].strip(), after[changed[0]].strip()) == (fault.was, fault.becomes)


def test_annotations_imports_and_what_an_error_says_get_none():
    lines = {
        line: {operator.__name__ for places in kinds.values() for operator, _ in places}
        for line, kinds in faults_of(TEXT).items()
    }
    assert 1 not in lines
    assert 2 not in lines
    assert not any("BitOr" in name for name in lines[5])
    assert lines[8] == {"RemoveStatement"}
    assert max(lines) == 11, "neither what zip is told nor a decorator"


@pytest.mark.parametrize("example", RemoveStatement.examples())
def test_a_statement_is_left_out(example):
    found = mutate_code(example.pre_mutation_code, RemoveStatement(), 0)
    assert found == example.post_mutation_code


def test_a_seed_says_which_faults():
    texts = {"f.py": TEXT}
    assert sample(texts, 3, seed=1) == sample(texts, 3, seed=1)
    assert len({tuple(sample(texts, 3, seed=seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_files_and_tests_of_a_subject_are_there(subject):
    for file in subject.files:
        assert (ROOT / file).is_file(), file
    assert subject.test_files()
    assert all((ROOT / file).is_file() for file in subject.test_files())


def test_what_is_called_equivalent_is_still_in_the_files_and_says_why():
    for one in yaml.safe_load(EQUIVALENT.read_text()) or []:
        assert set(one) == {"file", "was", "becomes", "reason"}
        lines = [line.strip() for line in (ROOT / one["file"]).read_text().splitlines()]
        assert one["was"] in lines, f"{one['file']} has no such line any more: {one['was']}"
        assert len(one["reason"]) > 10
