"""A record with a byte flipped or cut off anywhere: never an exception, never a wrong result."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_run import make_run

from orchestrator.ledger.recovery import ledger
from sweeps.attempts.manifest import damage
from sweeps.files.whole_files import write_json
from sweeps.reading.run_table import attempt_frame
from sweeps.store.records import attempt_record, closing_record, sealed
from sweeps.store.run_folder import RunFolder
from sweeps.store.store import Store

RUN = make_run()
DONE = {
    "status": "finished",
    "step": 7,
    "parts": {"steps/part-000000-000007.parquet": {"rows": 7, "sha256": "0" * 64}},
}
ATTEMPT = {
    "started": "2026-01-01T00:00:00.000+00:00",
    "ended": "2026-01-01T00:00:09.000+00:00",
    "seconds": 9.0,
    "node": "here",
    "pid": 17,
    "resumed_from": 3,
    "cause": "finished",
    "error": None,
}
MANIFEST = {
    "step": 3,
    "files": {"layer-0000.safetensors": {"bytes": 4, "sha256": "1" * 64}},
    "parts": {"steps/part-000000-000003.parquet": {"bytes": 5, "sha256": "2" * 64}},
}


def flipped(data, place, bit):
    text = bytearray(json.dumps(data, indent=1, sort_keys=True).encode())
    text[place % len(text)] ^= 1 << bit
    return bytes(text)


def cut(data, place, _):
    text = json.dumps(data, indent=1, sort_keys=True).encode()
    return text[: place % len(text)]


HARM = st.builds(
    lambda harm, place, bit: lambda data: harm(data, place, bit),
    st.sampled_from([flipped, cut]),
    st.integers(0, 10_000),
    st.integers(0, 7),
)


@given(HARM)
@example(lambda data: flipped(data, 4507, 0))
def test_a_harmed_record_is_read_as_far_as_it_can_be(tmp_path_factory, harm):
    store = Store(tmp_path_factory.mktemp("store"))
    folder = store.run(RUN.run_id)
    write_json(folder.attempt_path(1), ATTEMPT)
    folder.attempt_path(1).write_bytes(harm(ATTEMPT))
    attempt_frame({folder.run_id: folder.attempts()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEPTHSWEEP_STALE_SECONDS", "0.01")  # one without a cause is watched
        assert ledger(store)(RUN.run_id).state != "waiting"
    manifest = folder.checkpoint_path(3) / "manifest.json"
    write_json(manifest, MANIFEST)
    manifest.write_bytes(harm(MANIFEST))
    assert damage(folder, folder.checkpoint_path(3)) is not None
    (folder.path / "DONE.json").write_bytes(harm(DONE))
    done = folder.done()
    assert done is None or (set(done["parts"]) and done["status"] in ("finished", "diverged"))
    # One that is sealed, as all are that are written now, is read as it was or not at all.
    (folder.path / "DONE.json").write_bytes(harm(sealed(DONE)))
    done = folder.done()
    assert done is None or {name: done[name] for name in DONE} == DONE


@pytest.mark.parametrize("record", [DONE, sealed(DONE)], ids=["of old", "sealed"])
def test_a_record_that_nothing_harmed_is_read(tmp_path, record):
    folder = Store(tmp_path).run(RUN.run_id)
    write_json(folder.path / "DONE.json", record)
    assert {name: folder.done()[name] for name in DONE} == DONE


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {**DONE, "status": "fimished"},
        {**DONE, "step": "7"},
        {**DONE, "parts": {"x": 1}},
    ],
)
def test_what_is_no_closing_record_is_no_result(data):
    assert closing_record(data) is None


def test_a_field_of_the_wrong_kind_is_unknown():
    found = attempt_record(2, {**ATTEMPT, "pid": "17", "ended": "yesterday", "x": 1})
    assert found["attempt"] == 2
    assert (found["pid"], found["ended"], found["node"]) == (None, None, "here")
    assert "x" not in found


def test_attempts_are_numbered_by_their_files(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.newest_attempt() is None
    for number in (1, 2, 10):
        write_json(folder.attempt_path(number), ATTEMPT)
    (tmp_path / "attempts/.11.json.x.tmp").write_text("torn")
    assert folder.attempt_numbers() == [1, 2, 10]
    assert folder.newest_attempt()["attempt"] == 10
