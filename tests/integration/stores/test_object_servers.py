"""A store on real servers (``object_servers``): what they promise, and sweeps on them."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from object_servers import SOUND, Azurite, FakeGcs, Rclone, SeaweedFS, serving

from sweeps.errors import UserError
from sweeps.files.objects import ObjectFiles, ObjectPath
from sweeps.files.whole_files import occupied
from sweeps.leases.capability import shortcoming
from sweeps.store.store import Store
from tests.orchestrator.command_line import typed

SWEEP = """
name: small
models:
  a: {standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 3}
objectives:
  clm: {data: {builtin: python-docs}}
probe: {data: {builtin: python-docs}, rows: 32, sequence_length: 16, every: 20}
defaults: {steps: 60, batch_size: 4, sequence_length: 16, learning_rate: 1e-3,
  part_steps: 10, checkpoint_share: 1}
measurements: []
blocks:
  - name: all
    grid: {model: [a], objective: [clm], control: [standard], seed: [0, 1]}
"""
ALONE = """
import sys
from pathlib import Path
from sweeps.declaration.expand import read_sweep
from sweeps.store.store import Store
from workers.__main__ import main
sweep = read_sweep(Path("small.yaml"))
Store.at("store").save_sweep(sweep)
for run in sweep.runs:
    Path("run.json").write_text(run.model_dump_json())
    sys.argv = ["workers", "run.json", "--store", "store"]
    assert main() == 0
"""
# SeaweedFS answers those who ask for one object at once a second apart.
RACES, RACERS = 1, 4


@pytest.fixture
def server(request, tmp_path, monkeypatch):
    """The server of the kind that a test is parametrized with; clients know how to reach it."""
    kind = request.param
    if (why := kind.missing()) is not None:
        pytest.skip(why)
    with serving(kind, tmp_path / "server") as there:
        for name, value in there.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DEPTHSWEEP_CACHE", str(tmp_path / "node"))
        yield there


def kinds(*quick):
    """Return the servers that keep what a store relies on; all but some of them are slow."""
    return [
        pytest.param(kind, id=name, marks=[] if kind in quick else pytest.mark.slow)
        for name, kind in SOUND.items()
    ]


def begin(*words, folder):
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=dict(os.environ),
    )


def said(*words, folder):
    """Return what a command prints that ends well."""
    done = typed(*words, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("server", kinds(SeaweedFS, FakeGcs, Azurite), indirect=True)
def test_a_server_keeps_what_a_store_relies_on(server):
    files = ObjectFiles(server.url())
    assert shortcoming(ObjectPath(files)) is None
    files.put("a/b/c", b"1")
    files.put("a/d", b"22")
    assert {key: entry.size for key, entry in files.listing("a/").items()} == {"a/b/c": 1, "a/d": 2}
    assert files.children("a") == ["b", "d"]
    assert [files.exists(key) for key in ("a/d", "a/b", "a/x")] == [True, False, False]
    assert files.get_many(["a/d", "a/x"]) == {"a/d": b"22"}
    with pytest.raises(FileNotFoundError):
        files.get("a/x")
    files.delete(["a/d", "a/x"])
    assert list(files.listing("a/")) == ["a/b/c"]
    assert files.replace_if("a/x", b"", files.tag("a/b/c")) is None
    # Some show a folder for a while after its last object has gone.
    files.put("left/checkpoints/layer", b"")
    files.delete(["left/checkpoints/layer"])
    assert occupied(ObjectPath(files, "left")) == []


@pytest.mark.parametrize("server", kinds(SeaweedFS, FakeGcs, Azurite), indirect=True)
def test_of_those_who_create_or_replace_at_once_one_wins(server):
    url = server.url()

    def race(attempt):
        won = []

        def one(number):
            if attempt(ObjectFiles(url), str(number).encode()) is not None:
                won.append(number)

        racers = [threading.Thread(target=one, args=(number,)) for number in range(RACERS)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        return won

    files = ObjectFiles(url)
    for number in range(RACES):
        key = f"races/{number}.json"
        (first,) = race(lambda own, data, key=key: own.create(key, data))
        assert files.get(key) == str(first).encode()
        tag = files.tag(key)
        (second,) = race(lambda own, data, key=key, tag=tag: own.replace_if(key, b"n" + data, tag))
        assert files.get(key) == f"n{second}".encode()


@pytest.mark.parametrize("server", [pytest.param(Rclone, id="rclone")], indirect=True)
def test_a_server_that_ignores_conditions_is_refused_in_one_line(server):
    with pytest.raises(UserError, match="ignores the conditions If-None-Match and If-") as refusal:
        Store.at(server.url()).identify()
    assert "\n" not in str(refusal.value)


@pytest.fixture(scope="module")
def local_digest(tmp_path_factory):
    """The digest of the sweep in a folder on this machine, its runs one after another."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "small.yaml").write_text(SWEEP, encoding="utf-8")
    process = begin("-c", ALONE, folder=folder)
    out = process.communicate(timeout=400)[0]
    assert process.returncode == 0, out
    return said("digest", "small", "--store", "store", folder=folder)


@pytest.mark.parametrize("server", kinds(SeaweedFS), indirect=True)
def test_a_sweep_outlives_a_server_that_is_killed(server, tmp_path, local_digest):
    (tmp_path / "small.yaml").write_text(SWEEP, encoding="utf-8")
    url = server.url()
    words = ("-m", "orchestrator", "run", "small.yaml", "--store", url)
    process = begin(*words, folder=tmp_path)
    try:
        files = ObjectFiles(url)
        until = time.monotonic() + 240
        while not any("/steps/part-" in key for key in files.listing("runs/")):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.1)
        server.kill()
        time.sleep(2)
        server.start()
        out = process.communicate(timeout=400)[0]
    finally:
        process.kill()
    assert process.returncode == 0, out
    assert "small: 2 finished" in out
    store = ("--store", url)
    assert said("digest", "small", *store, folder=tmp_path) == local_digest
    assert "2 runs looked at, 0 findings" in said("doctor", *store, folder=tmp_path)
    states = json.loads(said("status", "small", "--json", *store, folder=tmp_path))["small"]
    assert [one["state"] for one in states] == ["finished", "finished"]
