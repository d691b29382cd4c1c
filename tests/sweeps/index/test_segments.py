"""The index of what is closed: added up from files that are never changed, and never believed of
what has gone."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.files.listing import contents, entries
from sweeps.index import segments
from sweeps.index.closed_work import ClosedWork, lines_of, parsed
from sweeps.store.store import Store

ATTEMPT = {"attempt": 1, "cause": "finished", "seconds": 2.5, "error": None, "made": {"torch": "2"}}


def closed(work_id: str, seal: str = "5ea1", attempts: int = 1, **rest: Any) -> ClosedWork:
    said = {"parts": ["steps/part-000000-000004.parquet"], "spec": {"seed": 1}, "facts": {}}
    tries = [{**ATTEMPT, "attempt": number} for number in range(1, attempts + 1)]
    head = (work_id, seal, "finished", 4, 0.5, [100, 7, 9])
    return ClosedWork(head, tries, {**said, "result": None, **rest})


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    if request.param == "folder":
        return Store.at(str(tmp_path / "store")).root
    return Store.at(request.getfixturevalue("s3_url")).root


def names(root: Any, kind: str) -> list[str]:
    return [name for name in entries(root / "index") if name.startswith(kind)]


def known(root: Any) -> dict[str, ClosedWork]:
    return segments.read(root).entries


# ------------------------------------------------------------------------------------------- lines
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("=") | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(st.tuples(JSON, JSON), min_size=1, max_size=6))
def test_what_a_segment_holds_is_read_back_as_it_was(said: list[tuple[Any, Any]]) -> None:
    wrote = [
        ClosedWork(
            (f"{k:012x}", "5ea1", "finished", 4, 0.5, None),
            [{**ATTEMPT, "error": first}],
            {"parts": [], "spec": {"any": first}, "facts": {"any": second}, "result": None},
        )
        for k, (first, second) in enumerate(said * 2)
    ]
    read = parsed("".join(f"{line}\n" for line in lines_of(wrote)).encode())
    assert [(one.said(), one.attempts) for one in read] == [
        (one.said(), one.attempts) for one in wrote
    ]


def test_what_entries_share_stands_once() -> None:
    facts = {"family": "mamba" * 100}
    lines = list(lines_of([closed(f"{k:012x}", facts=facts) for k in range(50)]))
    assert sum(line.count("mamba" * 100) for line in lines) == 1


# --------------------------------------------------------------------------------------- adding up
def test_there_is_no_index_before_one_is_written(root: Any) -> None:
    assert segments.read(root) == segments.Index({}, [], believed=True)


def test_drivers_write_at_once_and_readers_add_up(root: Any) -> None:
    def drive(first: int) -> None:
        for k in range(first, first + 5):
            segments.write_closed(root, [closed(f"{k:012x}")])

    drivers = [threading.Thread(target=drive, args=(10 * k,)) for k in range(4)]
    for each in drivers:
        each.start()
    for each in drivers:
        each.join()
    assert set(known(root)) == {f"{10 * k + n:012x}" for k in range(4) for n in range(5)}


def test_many_small_files_are_merged_and_say_the_same(root: Any) -> None:
    ids = [f"{k:012x}" for k in range(segments.MANY + 1)]
    for work_id in ids:
        segments.write_closed(root, [closed(work_id)])
        segments.bury(root, f"gone{work_id}", ["5ea1"])
    segments.write_closed(root, [closed(f"gone{ids[3]}")])
    assert len(names(root, "closed")) <= 3
    assert len(names(root, "gone")) <= segments.MANY
    assert set(known(root)) == set(ids)
    assert known(root)[ids[0]].said() == closed(ids[0]).said()


def test_large_files_are_left_as_they_are(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LARGE_BYTES", 10)
    for k in range(segments.MANY + 2):
        segments.write_closed(root, [closed(f"{k:012x}")])
    assert len(names(root, "closed")) == segments.MANY + 2


def test_the_entry_that_knows_more_attempts_counts_in_whichever_file(root: Any) -> None:
    for attempts in (1, 3, 2):
        segments.write_closed(root, [closed("abc", attempts=attempts)])
    assert len(known(root)["abc"].attempts) == 3


# ----------------------------------------------------------------------------------------- burying
def test_an_entry_of_a_record_that_has_gone_never_counts_written_before_or_after(root: Any) -> None:
    segments.write_closed(root, [closed("abc"), closed("abd")])
    segments.bury(root, "abc", ["5ea1"])
    assert set(known(root)) == {"abd"}
    segments.write_closed(root, [closed("abc")])  # by a driver that read the record before
    assert set(known(root)) == {"abd"}
    segments.write_closed(root, [closed("abc", seal="another")])
    assert known(root)["abc"].seal == "another"


def test_of_two_records_of_one_run_none_is_believed(root: Any) -> None:
    segments.write_closed(root, [closed("abc", seal="one")])
    segments.write_closed(root, [closed("abc", seal="two"), closed("abd")])
    assert set(known(root)) == {"abd"}


# ------------------------------------------------------------------------------------------ damage
def damage(root: Any, name: str, how: str) -> None:
    place = root / "index" / name
    content = bytearray(contents(root / "index", [name])[name])
    if how == "torn":
        content = content[: len(content) // 2]
    elif how == "bit":
        content[-5] ^= 1
    elif how == "empty":
        content = bytearray()
    else:
        content = content.replace(b'"format": 1', b'"format": 9')
    place.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["torn", "bit", "empty", "later format"])
def test_a_damaged_file_of_entries_is_passed_over(root: Any, how: str) -> None:
    segments.write_closed(root, [closed("abc")])
    segments.write_closed(root, [closed("abd")])
    (hit,) = [name for name in names(root, "closed") if "abc" in _text(root, name)]
    damage(root, hit, how)
    found = segments.read(root)
    assert (set(found.entries), found.damaged) == ({"abd"}, [hit])


@pytest.mark.parametrize("how", ["torn", "bit", "empty", "later format"])
def test_where_it_is_not_known_what_has_gone_nothing_is_believed(root: Any, how: str) -> None:
    segments.write_closed(root, [closed("abc"), closed("abd")])
    segments.bury(root, "abc", ["5ea1"])
    damage(root, *names(root, "gone"), how)
    found = segments.read(root)
    assert (found.entries, found.believed) == ({}, False)


def _text(root: Any, name: str) -> str:
    return contents(root / "index", [name])[name].decode()


def test_a_file_that_is_merged_while_it_is_read_is_read_where_it_went(
    root: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(segments.MANY):
        segments.write_closed(root, [closed(f"{k:012x}")])
    before = segments.contents
    merging = [True]

    def read(folder: Any, wanted: Any) -> dict[str, bytes]:
        if merging.pop() if merging else False:
            segments.write_closed(root, [closed("abc")])  # one too many: all of them are merged
        return before(folder, wanted)

    monkeypatch.setattr(segments, "contents", read)
    assert len(known(root)) == segments.MANY + 1


def test_an_index_that_was_dropped_says_nothing(root: Any) -> None:
    segments.write_closed(root, [closed("abc")])
    assert set(known(root)) == {"abc"}
    segments.drop(root)
    assert known(root) == {}
