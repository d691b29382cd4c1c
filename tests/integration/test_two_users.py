"""Two users of one group at one store, side by side: each goes on with what the other has begun."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run
from two_users import ANN, BEN, GROUP, as_user, needs_root, shared_folder, unreadable

from sweeps.files.trees import files_below
from sweeps.store.store import Store

pytestmark = [needs_root, pytest.mark.slow]

SWEEP = """
name: shared
models:
  a: {standin: opt, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 3}
objectives:
  clm: {data: {file: reviews.txt}}
probe: {data: {file: probe.txt}, rows: 32, sequence_length: 16, every: 4}
defaults: {steps: 8, batch_size: 4, sequence_length: 16, learning_rate: 1e-3,
  part_steps: 3, checkpoint_share: 1}
blocks:
  - name: all
    set: {keep: final}
    grid: {model: [a], objective: [pretraining], control: [standard, equal_step], seed: [SEEDS]}
"""
# Carries out a run without Ray up to a step after its first checkpoint, and fails.
FAILS = """
import sys, torch
from sweeps.store.store import Store
from workers.train import train
store = Store.at(sys.argv[1])
run = store.load_sweep("shared").runs[int(sys.argv[2])]
steps = train(run, store, torch.device("cpu"))
while next(steps).step < 5:
    pass
try:
    steps.throw(ValueError("planted"))
except ValueError:
    print(run.run_id)
"""


class User:
    """A user with a home and a place for Ray's sockets, whose names must be short."""

    def __init__(self, uid, umask, store):
        self.uid, self.umask, self.store = uid, umask, store
        self.home = Path(tempfile.mkdtemp(prefix="ds"))
        os.chown(self.home, uid, GROUP)
        self.environment = {
            **os.environ,
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "RAY_TMPDIR": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "DEPTHSWEEP_STALE_SECONDS": "3",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.getcwd(),
        }
        (self.home / "work").mkdir()
        os.chown(self.home / "work", uid, GROUP)

    def python(self, *arguments):
        return as_user(
            self.uid,
            arguments,
            self.umask,
            env=self.environment,
            cwd=self.home / "work",
            timeout=300,
        )

    def depthsweep(self, *arguments, code=0):
        said = self.python("-m", "orchestrator", *arguments, "--store", self.store.location)
        assert said.returncode == code, said.stdout + said.stderr
        return said.stdout + said.stderr

    def sweep_file(self, seeds="0"):
        for name, word in (("reviews.txt", "w"), ("probe.txt", "p")):
            lines = (" ".join(f"{word}{(i * k) % 40}" for k in range(1, 13)) for i in range(120))
            (self.home / "work" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        path = self.home / "work" / "shared.yaml"
        path.write_text(SWEEP.replace("SEEDS", seeds), encoding="utf-8")
        for name in ("reviews.txt", "probe.txt", "shared.yaml"):
            (self.home / "work" / name).chmod(0o644)
        self.home.chmod(0o755)
        return path

    def fails(self, number):
        """Have a run of the sweep fail after a checkpoint; return its id."""
        said = self.python("-c", FAILS, self.store.location, number)
        assert said.returncode == 0, said.stderr
        return said.stdout.split()[-1]


@pytest.fixture(params=[ANN, BEN], ids=["ann begins", "ben begins"])
def users(request, tmp_path):
    """The user who began the store, and the other one."""
    store = Store.at(str(shared_folder(tmp_path / "store")))
    both = [User(uid, 0o002, store) for uid in (request.param, ANN + BEN - request.param)]
    yield both
    for user in both:
        shutil.rmtree(user.home, ignore_errors=True)


def test_each_goes_on_with_what_the_other_began(users):
    one, other = users
    store = one.store
    file = one.sweep_file()
    assert "2 finished" in one.depthsweep("run", file)
    assert unreadable(store.root) == []

    # Another version of the sweep, by the other: what there is counts, the caches are used.
    assert "2 finished" in other.depthsweep("run", one.sweep_file("0, 1"))
    assert unreadable(store.root) == []

    run_id = store.load_sweep("shared").runs[0].run_id
    one.depthsweep("forget", run_id)
    assert one.fails(0) == run_id
    assert unreadable(store.root) == []
    assert store.run(run_id).newest_attempt()["cause"] == "failed"
    assert "1 finished" in other.depthsweep("resume", "shared", "--only", "failed")
    assert store.run(run_id).newest_attempt()["resumed_from"] == 3
    assert unreadable(store.root) == []

    asked = ("query", "SELECT count(*) AS n FROM steps", "--format", "json")
    assert json.loads(other.depthsweep(*asked)) == json.loads(one.depthsweep(*asked))
    for user in users:
        page = user.home / "work" / "page.html"
        user.depthsweep("report", "shared", "-o", page)
        assert user.depthsweep("ls").count("shared") == 1
        assert user.depthsweep("digest", "shared") == one.depthsweep("digest", "shared")


def test_each_mends_and_tidies_what_the_other_left(users):
    one, other = users
    store = one.store
    one.depthsweep("run", one.sweep_file())
    for user, mender in ((one, other), (other, one)):
        run_id = store.load_sweep("shared").runs[1].run_id
        user.depthsweep("forget", run_id)
        user.fails(1)
        part = store.run(run_id).parts("steps")[0]
        part.write_bytes(part.read_bytes()[:-5])
        assert "bytes of" in mender.depthsweep("doctor", "--fix")
        assert "1 finished" in mender.depthsweep("resume", "shared")
        harmed = store.run(run_id).parts("layers")[0]
        harmed.write_bytes(b"harmed")
        words = " ".join(user.depthsweep("doctor", "--fix").split())
        assert "does not match its checksum" in words
        assert "1 finished" in user.depthsweep("resume", "shared")
        left = store.run(run_id).path / "steps" / "part-000000-000001.a7-0badcafe.parquet"
        planted = user.python("-c", f"open({str(left)!r}, 'w').write('of a crash')")
        assert planted.returncode == 0
        assert "parts that no record lists: 1" in mender.depthsweep("gc")
        assert not left.exists()
        cached = [name for name in files_below(store.cache) if not name.endswith(".lock")]
        for name in cached:
            os.utime(store.cache / name, (0, 0))
        assert "cached things" in mender.depthsweep("gc", "--cache", "5")
        user.depthsweep("forget", run_id)
        assert "1 finished" in user.depthsweep("resume", "shared")
        assert unreadable(store.root) == []


def test_with_umask_022_the_other_reads_and_is_told_where_it_cannot_write(tmp_path):
    store = Store.at(str(shared_folder(tmp_path / "store")))
    one, other = User(ANN, 0o022, store), User(BEN, 0o022, store)
    try:
        one.depthsweep("run", one.sweep_file())
        assert unreadable(store.root, replaceable=False) == []
        for words in (
            ("status", "shared"),
            ("ls", "shared", "--sizes"),
            ("query", "SELECT count(*) FROM profiles"),
            ("report", "shared", "-o", other.home / "work" / "page.html"),
            ("digest", "shared"),
            ("logs", store.runs()[0].run_id),
        ):
            other.depthsweep(*words)
        for words in (
            ("run", one.sweep_file("0, 1")),
            ("resume", "shared"),
            ("forget", store.runs()[0].run_id),
        ):
            said = other.depthsweep(*words, code=2)
            (line,) = (line for line in said.splitlines() if line.startswith("depthsweep: "))
            assert "cannot be written" in line or "belongs to" in line
        harmed = store.runs()[0].parts("layers")[0]
        harmed.write_bytes(b"harmed")
        assert "belongs to" in other.depthsweep("doctor", "--fix", code=2)
        assert store.runs()[0].done() is not None
    finally:
        for user in (one, other):
            shutil.rmtree(user.home, ignore_errors=True)


def test_both_read_an_object_store_through_one_copy_on_their_node(users, s3_url):
    one, other = users
    node = shared_folder(one.store.root.parent / "node")
    store = Store.at(s3_url)
    for user in users:
        user.store = store
        user.environment |= {
            **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            "DEPTHSWEEP_CACHE": str(node),
        }
    asked = ("query", "SELECT count(*) AS n FROM steps", "--format", "json")
    for seed, (user, reader) in enumerate(((one, other), (other, one))):
        run = run_spec("opt", "mlm", seed=seed, steps=4, probe_every=2, part_steps=2)
        write_run(store, run, [0.2, 0.1])
        save_sweep(store, "planted", [run])
        assert "planted" in user.depthsweep("ls", "--sizes")
        assert json.loads(user.depthsweep(*asked)) == [{"n": 4}]
        assert json.loads(reader.depthsweep(*asked)) == [{"n": 4}]
        assert unreadable(node) == []
    for path in node.rglob("*"):
        os.utime(path, (0, 0))
    assert "copies of stores on this node: 1" in one.depthsweep("gc")
    assert json.loads(other.depthsweep(*asked)) == [{"n": 4}]


def test_a_user_can_be_played_here():
    """What the others rest on: a user of the group cannot read what its modes forbid."""
    with tempfile.TemporaryDirectory() as name:
        secret = Path(name, "secret")
        secret.write_text("x")
        os.chown(secret, ANN, GROUP)
        secret.chmod(0o600)
        Path(name).chmod(0o755)
        said = as_user(BEN, ["-c", f"open({str(secret)!r})"], stdin=subprocess.DEVNULL)
        assert "PermissionError" in said.stderr
