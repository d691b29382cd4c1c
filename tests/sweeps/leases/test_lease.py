"""One lease in a real folder: taking it, showing life, losing it, ending it."""

import json
import threading
import time

import pytest

from sweeps.files import patience
from sweeps.files.whole_files import write_json
from sweeps.leases import lease as module
from sweeps.leases.lease import Lease, Vigil, close, closed_as_lost, newest, owner


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "0.5")
    return tmp_path / "leases"


def lease_of(folder, **said):
    record = {**owner(), "cause": None, **said}
    return Lease(folder, record), record


def taken(folder):
    lease, record = lease_of(folder)
    return lease, record, lease.take()


def on_disk(folder, number=1):
    return json.loads((folder / f"{number}.json").read_text())


def die(folder, number=1):
    """Make the newest record one of a process of another machine, which nobody sees any more."""
    seen = newest(folder)
    token = seen.record["token"]
    assert module.replace_if(
        folder / f"{number}.json", {**seen.record, "boot": "another"}, seen.version, token
    )


# ------------------------------------------------------------------------------ whose number
def test_the_first_gets_1_and_the_record_is_its_own(folder):
    lease, record, number = taken(folder)
    assert number == 1
    assert on_disk(folder) == record
    assert not lease.lost


def test_a_record_says_when_its_number_was_taken_the_first_one_too(folder):
    before = module.now()
    first, record, _ = taken(folder)
    assert before <= on_disk(folder)["started"] <= module.now()
    record["cause"] = "made"
    first.end()
    ended = module.now()
    taken(folder)
    assert on_disk(folder, 2)["started"] >= ended


def test_after_one_that_has_ended_comes_the_next_number_and_its_record_stays(folder):
    first, record, _ = taken(folder)
    record["cause"] = "made"
    assert first.end()
    assert taken(folder)[2] == 2
    assert on_disk(folder, 1) == record


def test_one_whose_process_is_gone_is_closed_as_lost(folder):
    _, record, _ = taken(folder)
    seen = newest(folder)
    gone = {**record, "process_started": record["process_started"] - 1}
    assert module.replace_if(folder / "1.json", gone, seen.version, record["token"])
    assert taken(folder)[2] == 2
    closed = on_disk(folder)
    assert (closed["cause"], closed["token"]) == ("lost", record["token"])
    assert closed["ended"]


def test_one_that_is_silent_elsewhere_is_closed_and_told_so(folder):
    first, _, _ = taken(folder)
    die(folder)
    second, _, number = taken(folder)
    assert number == 2
    assert on_disk(folder)["cause"] == "lost"
    assert not first.renew()
    assert first.lost
    assert second.renew()


def test_who_has_no_need_any_more_gets_no_number(folder):
    taken(folder)
    other, _ = lease_of(folder)
    asked = []
    assert other.take(lambda: asked.append(1) or len(asked) < 3) is None
    assert len(asked) == 3
    assert other.lost
    assert newest(folder).number == 1


# ------------------------------------------------------------------------------ while it lasts
def test_each_sign_of_life_is_another_version_of_the_same_content(folder):
    lease, record, _ = taken(folder)
    before = newest(folder)
    assert lease.renew()
    after = newest(folder)
    assert (after.record, after.number) == (record, 1)
    assert after.version != before.version
    assert after.sign != before.sign
    assert after.by == record["token"]


def test_what_is_written_is_seen_and_the_lease_goes_on(folder):
    lease, record, _ = taken(folder)
    record["step"] = 7
    assert lease.write()
    assert on_disk(folder)["step"] == 7
    assert lease.renew()


def test_who_was_closed_changes_nothing_any_more(folder):
    lease, record, _ = taken(folder)
    assert closed_as_lost(folder, newest(folder), "somebody")
    closed = on_disk(folder)
    record["step"] = 7
    assert (lease.write(), lease.renew(), lease.end()) == (False, False, False)
    assert lease.lost
    assert on_disk(folder) == closed


def test_the_last_word_is_the_last_one(folder):
    lease, record, _ = taken(folder)
    record["cause"] = "made"
    assert lease.end()
    assert on_disk(folder) == record
    assert (lease.end(), lease.renew(), lease.write()) == (False, False, False)
    assert [path.name for path in folder.iterdir()] == ["1.json"], "nothing may replace it"


@pytest.mark.parametrize("call", ["renew", "write", "end"])
def test_an_answer_that_was_lost_is_asked_for_again(folder, monkeypatch, call):
    lease, record, _ = taken(folder)
    for name in ("renew", "replace_if"):
        real, lost = getattr(module, name), []

        def change(*words, real=real, lost=lost, **more):
            answer = real(*words, **more)
            if not lost:
                lost.append(answer)
                return None
            return answer

        monkeypatch.setattr(module, name, change)
    if call == "end":  # its first answer said that it was the last change: there is no other
        record["cause"] = "made"
        lease.end()
        assert on_disk(folder)["cause"] == "made"
    else:
        assert getattr(lease, call)()
        assert not lease.lost


def test_a_number_whose_answer_was_lost_is_taken_and_no_other(folder, monkeypatch):
    real, made = module.create, []

    def create(*words, **more):
        made.append(real(*words, **more))
        if len(made) == 1:
            raise TimeoutError("the answer was lost")
        return made[-1]

    monkeypatch.setattr(module, "create", create)
    monkeypatch.setattr(patience, "FIRST_WAIT_SECONDS", 0.01)
    lease, record, number = taken(folder)
    assert number == 1
    assert made[1:] == [None]
    assert lease.renew()
    assert on_disk(folder) == record


# ------------------------------------------------------------------------------ the heart
def test_a_heart_beats_until_it_is_told_to_stop_also_while_the_store_is_away(folder, monkeypatch):
    lease, _, _ = taken(folder)
    stop, beats, real = threading.Event(), [], module.renew

    def away(*words):
        beats.append(1)
        if len(beats) == 2:
            raise TimeoutError("away")
        if len(beats) == 4:
            stop.set()
        return real(*words)

    monkeypatch.setattr(module, "renew", away)
    also = []
    lease.beat(stop, lambda: also.append(len(beats)))
    assert len(beats) == 4
    assert also == [1, 3, 4]
    assert not lease.lost


def test_a_heart_stops_by_itself_once_the_lease_is_lost(folder):
    lease, _, _ = taken(folder)
    closed_as_lost(folder, newest(folder), "somebody")
    also = []
    lease.beat(threading.Event(), lambda: also.append(1))
    assert also == []


def test_it_beats_ten_times_before_it_would_count_as_silent(folder):
    waits = []

    class Stop:
        def wait(self, seconds):
            waits.append(seconds)
            return True

    lease, _, _ = taken(folder)
    lease.beat(Stop())
    assert waits == [pytest.approx(0.05)]


def test_it_beats_as_long_as_the_context_lasts(folder):
    lease, _, _ = taken(folder)
    signs, until = {newest(folder).sign}, time.monotonic() + 60
    with lease.beating():
        while len(signs) < 3:
            assert time.monotonic() < until
            signs.add(newest(folder).sign)
    assert not [one for one in threading.enumerate() if one.name == "heartbeat"]


def test_a_context_is_left_once_its_last_beat_is_over(folder, monkeypatch):
    lease, _, _ = taken(folder)
    begun, over = threading.Event(), []

    def slow():
        begun.set()
        time.sleep(0.2)
        over.append(True)
        return False

    monkeypatch.setattr(lease, "renew", slow)
    with lease.beating():
        assert begun.wait(60)
    assert over == [True]


# ------------------------------------------------------------------------------ who looks
def test_the_newest_record_is_that_of_the_highest_number(folder):
    assert newest(folder) is None
    folder.mkdir()
    assert newest(folder) is None
    for name in ("9", "10", "2", "x", "11 "):
        write_json(folder / f"{name}.json", {"name": name})
    seen = newest(folder)
    assert (seen.number, seen.record) == (10, {"name": "10"})


def test_what_is_known_is_not_read_again_until_it_changes(folder):
    lease, _, _ = taken(folder)
    seen = newest(folder)
    assert newest(folder, seen) is seen
    lease.renew()
    again = newest(folder, seen)
    assert again is not seen
    assert again.number == seen.number


def test_of_a_record_that_is_none_the_owner_is_unknown(folder):
    folder.mkdir()
    (folder / "1.json").write_text('{"token": 3, "pid": "x", "node": "here"')
    seen = newest(folder)
    assert seen.record == {}
    assert set(seen.owner.values()) == {None}
    write_json(folder / "1.json", {"token": 3, "pid": "x", "node": "here"})
    assert {k: v for k, v in newest(folder).owner.items() if v is not None} == {"node": "here"}


def test_nothing_and_what_has_ended_is_gone_at_once(folder):
    assert Vigil(folder).look() == "gone"
    lease, record, _ = taken(folder)
    record["cause"] = "made"
    lease.end()
    assert Vigil(folder).look() == "gone"


def test_a_process_of_this_machine_that_beats_is_alive_at_once(folder):
    taken(folder)
    assert Vigil(folder).look() == "alive"


def test_one_of_elsewhere_is_alive_once_it_was_seen_to_change(folder):
    lease, record, _ = taken(folder)
    record["boot"] = "another"
    assert lease.write()
    vigil = Vigil(folder)
    assert vigil.look() == "unsure"
    assert vigil.look() == "unsure"
    lease.renew()
    assert vigil.look() == "alive"
    assert vigil.look() == "alive"


# ------------------------------------------------------------------------------ closing for another
def test_only_what_was_seen_is_closed(folder):
    lease, _, _ = taken(folder)
    seen = newest(folder)
    lease.renew()
    assert not close(folder, seen, {"cause": "lost"}, "somebody")
    assert on_disk(folder)["cause"] is None
    assert close(folder, newest(folder), {"cause": "lost", "more": 1}, "somebody")
    assert (on_disk(folder)["cause"], on_disk(folder)["more"]) == ("lost", 1)


def test_what_has_ended_is_closed_already_and_stays_as_it_is(folder):
    lease, record, _ = taken(folder)
    record["cause"] = "made"
    lease.end()
    assert closed_as_lost(folder, newest(folder), "somebody")
    assert on_disk(folder) == record


def test_the_word_of_who_closes_it_is_the_last_one_too(folder):
    lease, _, _ = taken(folder)
    assert closed_as_lost(folder, newest(folder), "somebody")
    assert [path.name for path in folder.iterdir()] == ["1.json"], "nothing may replace it"
    assert not lease.end()
    assert on_disk(folder)["cause"] == "lost"


def test_a_record_of_layout_1_which_had_no_versions_is_closed(folder):
    folder.mkdir()
    write_json(folder / "1.json", {"cause": None, "node": "here"})
    assert closed_as_lost(folder, newest(folder), "somebody")
    assert on_disk(folder)["cause"] == "lost"
    assert on_disk(folder)["node"] == "here"
