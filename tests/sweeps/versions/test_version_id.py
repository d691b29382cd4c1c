import pytest

from sweeps.errors import UserError
from sweeps.versions.version_id import SweepName, chosen, version_id

RECORD = {
    "name": "study",
    "description": "what it is about",
    "measurements": ["propagation"],
    "track": {},
    "runs": [{"run_id": "a" * 12, "spec": {"lies": "/here"}}, {"run_id": "b" * 12, "spec": {}}],
}


def test_a_name_is_a_name_and_what_stands_behind_the_mark_a_version():
    assert SweepName.parse("my.study-2") == SweepName("my.study-2")
    assert SweepName.parse("study@3F2a") == SweepName("study", "3f2a")


@pytest.mark.parametrize("given", ["study@", "study@3f2", "study@latest", "study@3f2a@0000"])
def test_a_version_that_cannot_be_meant_is_refused(given):
    with pytest.raises(UserError, match=r"4 or more hex digits .*depthsweep ls study"):
        SweepName.parse(given)


@pytest.mark.parametrize(
    "change",
    [
        {"description": "another"},
        {"measurements": []},
        {"track": {"wandb": {}}},
        {"runs": RECORD["runs"][:1]},
        {"runs": RECORD["runs"][::-1]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_a_sweep_stands_for_makes_another_version(change):
    first = version_id(RECORD, "name: study", None)
    assert version_id({**RECORD, **change}, "name: study", None) != first
    assert version_id(RECORD, "name: study # edited", None) != first
    assert version_id(RECORD, "name: study", "claims: []") != first
    assert len(first) == 12


def test_where_the_files_of_a_run_lie_makes_no_other_version():
    moved = [{**entry, "spec": {"lies": "/there"}} for entry in RECORD["runs"]]
    assert version_id({**RECORD, "runs": moved}, "", None) == version_id(RECORD, "", None)


def test_a_prefix_means_the_one_that_it_begins():
    digests = ["3f2a00000000", "3f2b00000000", "00aa00000000"]
    assert chosen(SweepName("study", "00aa"), digests) == "00aa00000000"
    with pytest.raises(UserError, match="study@3f2: means 3f2a00000000, 3f2b00000000; give more"):
        chosen(SweepName("study", "3f2"), digests)
    with pytest.raises(UserError, match="no version '3f2c00'; did you mean '3f2a00'"):
        chosen(SweepName("study", "3f2c00"), ["3f2a00000000", "00aa00000000"])
    many = [f"{k:012x}" for k in range(9)]
    with pytest.raises(UserError, match=r"the newest are 000000000000, .* lists all 9"):
        chosen(SweepName("study", "ffff"), many)
