"""The lease under every order of events that a schedule may bring, checked at the server.

Claimants run the real code, and go on only when the schedule says so: before each request. A
request may be made and its answer lost, or fail unmade; a read may show any earlier state, as a
client of a network file system may have kept it; a claimant may stop for ever. When a watcher has
seen enough silence is left to the schedule as well: no clock is trusted.

What must hold: once the server has made somebody the owner, no earlier owner is told that it owns.
"""

import os
import random
from itertools import pairwise

import greenlet
import pytest

from sweeps.files import folder_records, patience, records
from sweeps.files.records import Seen
from sweeps.leases import lease as lease_module
from sweeps.leases.lease import Lease

SCHEDULES = 1500
POINTS = 400


class Schedule:
    """Lets one of several bodies go on at a time, as a seed decides, from point to point."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self._hub = greenlet.getcurrent()

    def point(self):
        """Wait here until it is this one's turn again."""
        self._hub.switch()

    def run(self, bodies):
        """Let them go on in turns until all have ended, or are left where they are for ever."""
        waiting = [greenlet.greenlet(body) for body in bodies]
        for _ in range(POINTS):
            waiting = [one for one in waiting if not one.dead]
            if not waiting:
                return
            self.random.choice(waiting).switch()


class Server:
    """Records that are created and replaced on conditions, of which one may be left out."""

    def __init__(self, schedule, without=(), kind="folder"):
        self._schedule = schedule
        self._without = without
        self._kind = kind
        self._makers = {}
        self._states = [{}]
        self._count = 0
        self.owners = []  # who was made or confirmed the owner, in the server's order

    def _request(self, make):
        """Make a request, or lose it, or lose its answer."""
        self._schedule.point()
        fate = self._schedule.random.random()
        if fate < 0.04:
            raise TimeoutError("the request was lost")
        answer = make()
        if fate > 0.94:
            raise TimeoutError("the answer was lost")
        return answer

    def _seen(self):
        """Return the records as this client sees them: now, or as they were once."""
        self._schedule.point()
        if self._schedule.random.random() < 0.3:
            return self._schedule.random.choice(self._states)
        return self._states[-1]

    def _put(self, name, data):
        self._count += 1
        version = f"v{self._count}"
        self._makers[version] = data["by"]
        self._states.append({**self._states[-1], name: (dict(data), version)})
        return version

    def create(self, place, data, token=None, *, within=None):
        del within

        def make():
            if place.name in self._states[-1] and "create" not in self._without:
                return None
            self.owners.append((place.name, token))
            return self._put(place.name, {**data, "by": token})

        return self._request(make)

    def replace_if(self, place, data, version, by, *, last=False):
        del last

        def make():
            there = self._states[-1].get(place.name)
            if there is None or (there[1] != version and "replace" not in self._without):
                return None
            if by == data["token"] and data["cause"] is None:
                self.owners.append((place.name, by))
            return self._put(place.name, {**data, "by": by})

        return self._request(make)

    def renew(self, place, data, version, by):
        return self.replace_if(place, data, version, by)

    def versions(self, folder):
        del folder
        return {name: version for name, (_, version) in self._seen().items()}

    def look(self, place, version):
        """Of a folder the version says who made it, and the content may be an older one: what a
        client has kept, or of a record that is just being replaced. Of objects the content is that
        of now."""
        states = self._seen() if self._kind == "folder" else self._states[-1]
        there = states.get(place.name)
        if there is None:
            return None
        data, _ = there
        by = self._makers[version] if self._kind == "folder" else data["by"]
        return Seen(dict(data), version, version, by, None)


class Silence:
    """A watch that finds silence whenever the schedule says."""

    schedule = None

    def sees_life(self, version):
        del version
        return self.schedule.random.random() < 0.5


def claimant(folder, token, told):
    """Take the lease, show life a few times, and end; tell when the server said it is ours."""

    def body():
        lease = Lease(folder, {"token": token, "cause": None})
        lease.take()
        told.append(token)
        for _ in range(3):
            try:
                ours = lease.renew()
            except OSError:
                continue
            if not ours:
                return
            told.append(token)
        lease._record["cause"] = "finished"
        while True:
            try:
                lease.end()
                return
            except OSError:
                continue

    return body


def play(seed, monkeypatch, folder, claimants, without=(), kind="folder"):
    """Return who owned the lease, in the order in which the server made it so."""
    schedule = Schedule(seed)
    Silence.schedule = schedule
    server = Server(schedule, without, kind)
    for module, name in [(lease_module, "time"), (patience, "time")]:
        monkeypatch.setattr(
            module, name, type("Clock", (), {"sleep": lambda _: schedule.point(), "monotonic": int})
        )
    monkeypatch.setattr(lease_module, "Watch", Silence)
    monkeypatch.setattr(lease_module, "is_there", lambda _: None)
    for name in ("create", "replace_if", "renew", "versions", "look"):
        monkeypatch.setattr(lease_module, name, getattr(server, name))
    schedule.run([claimant(folder, f"{k}" * 16, []) for k in range(claimants)])
    return server.owners


def interleaved(owners):
    """Return whether anybody owned again after another one had."""
    left = set()
    for before, now in pairwise(owners):
        if now != before:
            left.add(before)
        if now in left:
            return True
    return False


@pytest.mark.parametrize("kind", ["folder", "objects"])
@pytest.mark.parametrize("claimants", [2, 3])
def test_at_most_one_owns_whatever_is_lost_late_or_frozen(tmp_path, monkeypatch, claimants, kind):
    owned = set()
    for seed in range(SCHEDULES):
        owners = play(seed, monkeypatch, tmp_path, claimants, kind=kind)
        assert not interleaved(owners), f"seed {seed}: {owners}"
        owned |= {token for _, token in owners}
    assert len(owned) == claimants  # each had its turn in some schedule


@pytest.mark.parametrize("without", ["create", "replace"])
def test_either_condition_left_out_is_noticed(tmp_path, monkeypatch, without):
    assert any(
        interleaved(play(seed, monkeypatch, tmp_path, 2, [without])) for seed in range(SCHEDULES)
    )


class Requests:
    """``os`` for records in a folder, with a point of the schedule before each request to it."""

    def __init__(self, schedule, real):
        self._schedule = schedule
        self._real = real

    def __getattr__(self, name):
        found = getattr(self._real, name)
        if name not in ("link", "rename", "listdir", "open"):
            return found

        def request(*args, **options):
            self._schedule.point()
            return found(*args, **options)

        return request


@pytest.mark.parametrize("claimants", [2, 3])
def test_at_most_one_owns_a_real_folder(tmp_path, monkeypatch, claimants):
    """The same over hard links and renames: a seal is consumed by one of those who saw it."""
    for seed in range(SCHEDULES // 15):
        schedule = Schedule(seed)
        Silence.schedule = schedule
        with monkeypatch.context() as patch:
            clock = type("Clock", (), {"sleep": lambda _, s=schedule: s.point(), "monotonic": int})
            patch.setattr(lease_module, "time", clock)
            patch.setattr(lease_module, "Watch", Silence)
            patch.setattr(lease_module, "is_there", lambda _: None)
            patch.setattr(folder_records, "os", Requests(schedule, os))
            patch.setattr(records, "os", Requests(schedule, os))
            owners = []
            patch.setattr(folder_records, "_rename", renaming(owners, folder_records._rename))
            patch.setattr(lease_module, "create", creating(owners, records.create))
            told = []
            folder = tmp_path / f"{claimants}-{seed}"
            schedule.run([claimant(folder, f"{k}" * 16, told) for k in range(claimants)])
        assert told
        assert not interleaved(owners), f"seed {seed}: {owners}"


def renaming(owners, rename):
    """Note whose seal was renamed by its own writer, when it was."""

    def noted(seen, new):
        done = rename(seen, new)
        _, name, token, _ = ("", *seen.name[1:].split("~"))
        if done and folder_records.maker(new.name) == token:
            owners.append((name, token))
        return done

    return noted


def creating(owners, create):
    def noted(place, data, token=None, **options):
        version = create(place, data, token, **options)
        if version is not None:
            owners.append((place.name, token))
        return version

    return noted
