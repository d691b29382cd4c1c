"""Silence is counted on the watcher's own clock, and only while it looks."""

import pytest

from sweeps.errors import UserError
from sweeps.liveness import watch as module
from sweeps.liveness.watch import Watch, is_fresh, stale_seconds, tell, telling


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by what is added to it."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "8")
    return now


def test_what_changes_lives_and_what_does_not_is_gone_after_the_stale_time(clock):
    watch = Watch()
    for beat in range(20):
        clock[0] += 2
        assert watch.sees_life(str(beat // 3))
    seen = []
    for _ in range(6):
        clock[0] += 2
        seen.append(watch.sees_life("19 // 3"))
    assert seen == [True, True, True, False, False, False]


def test_a_watcher_that_was_away_has_not_seen_silence(clock):
    watch = Watch()
    assert watch.sees_life("1")
    clock[0] += 3600
    assert watch.sees_life("1")


@pytest.mark.usefixtures("clock")
def test_a_beat_is_recent_by_this_machines_clock_or_says_nothing(monkeypatch):
    monkeypatch.setattr(module.time, "time", lambda: 5000.0)
    assert [is_fresh(beat) for beat in (4993.0, 5007.0, 4991.0, 5009.0, None)] == [
        *(True, True, False, False, False)
    ]


@pytest.mark.parametrize("said", ["0", "-1", "soon", "nan", "inf"])
def test_a_stale_time_that_is_none_is_refused(said, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", said)
    with pytest.raises(UserError, match="DEPTHSWEEP_STALE_SECONDS"):
        stale_seconds()


def test_only_who_asked_is_told_and_only_meanwhile():
    said = []
    tell(1)
    with telling(lambda *words: said.append(words)):
        tell(3)
    tell(2)
    assert said == [(3, stale_seconds())]
