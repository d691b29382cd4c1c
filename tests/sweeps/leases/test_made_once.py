"""What one process makes for all: made once, and by another one where the first is frozen."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sweeps.files import folder_records
from sweeps.files.records import create
from sweeps.files.whole_files import remove_folder, write_text
from sweeps.leases.lease import Vigil
from sweeps.leases.made_once import made_once
from sweeps.liveness.watch import poll_seconds, stale_seconds

# Makes something, and is frozen while it does; thaws, and puts it in place late.
MAKER = """
import os, signal, sys
from pathlib import Path
from sweeps.files.whole_files import write_text
from sweeps.leases.made_once import made_once
path = Path(sys.argv[1])

def make():
    print("making", flush=True)
    if sys.argv[2] == "frozen":
        os.kill(os.getpid(), signal.SIGSTOP)
    write_text(path, "made")
    return "made"

print(made_once(path, lambda: path.read_text() if path.exists() else None, make), flush=True)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "1")
    return tmp_path / "tokens" / "abc"


def maker(place, how):
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(place), how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "making\n"
    return process


def find(place):
    return lambda: place.read_text() if place.exists() else None


def make(place, made):
    def make():
        made.append(threading.get_ident())
        time.sleep(0.05)
        write_text(place, "made")
        return "made"

    return make


def test_of_many_that_need_it_one_makes_it(place):
    made, got = [], []
    threads = [
        threading.Thread(
            target=lambda: got.append(made_once(place, find(place), make(place, made)))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert got == ["made"] * 8
    assert [path.name for path in place.parent.iterdir()] == ["abc"]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGCONT])
def test_a_maker_that_is_frozen_holds_nobody_up_for_longer_than_a_lease(place, end, monkeypatch):
    process, made, looks = maker(place, "frozen"), [], []
    look = Vigil.look
    monkeypatch.setattr(Vigil, "look", lambda vigil: (looks.append(vigil), look(vigil))[1])
    assert made_once(place, find(place), make(place, made)) == "made"
    assert len(made) == 1
    # A lease is a second here. Looks are counted, not seconds: others may have the processors.
    assert len(looks) <= 2 * stale_seconds() / poll_seconds()
    os.kill(process.pid, end)
    process.wait(60)
    assert place.read_text() == "made"


def test_a_maker_that_dies_or_fails_is_followed_at_once(place, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "300")

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        made_once(place, find(place), fail)
    process = maker(place, "frozen")
    process.kill()
    process.wait()
    assert made_once(place, find(place), make(place, [])) == "made"


def test_what_is_slow_to_make_is_waited_for(place):
    """Its maker shows life all the while: nobody makes it a second time."""
    made, begun = [], threading.Event()

    def slowly():
        begun.set()
        time.sleep(4 * stale_seconds())
        return make(place, made)()

    slow = threading.Thread(target=lambda: made_once(place, find(place), slowly))
    slow.start()
    assert begun.wait(60)
    assert made_once(place, find(place), make(place, made)) == "made"
    slow.join()
    assert len(made) == 1


def test_who_waits_while_the_maker_takes_its_folder_away_goes_on(place, monkeypatch):
    """The end of a turn was seen; the record of the next one is on its way into the folder."""
    create_aside, gone = folder_records.create_aside, []

    def taken_away(aside, data):
        create_aside(aside, data)
        if not gone:
            gone.append(aside.parent)
            remove_folder(aside.parent)

    monkeypatch.setattr(folder_records, "create_aside", taken_away)
    made = []
    assert made_once(place, find(place), make(place, made)) == "made"
    assert (len(made), len(gone)) == (1, 1)
    assert os.listdir(place.parent) == [place.name]


def test_a_record_below_what_is_gone_is_not_made_anew(place, monkeypatch):
    """A store whose mount goes away while a record is put in."""
    within = place.parent
    within.mkdir()
    create_aside = folder_records.create_aside

    def taken_away(aside, data):
        create_aside(aside, data)
        remove_folder(within)

    monkeypatch.setattr(folder_records, "create_aside", taken_away)
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        create(place / "1.json", {"token": "a"}, "a", within=within)
    assert not within.exists()
