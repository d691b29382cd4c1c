"""Runs on hosts of a network with an S3 server in it (``hosts``): cut off, deaf, lossy, slow.

A run on a host that is cut off goes on elsewhere, and what the first one does afterwards replaces
nothing: rows are those of a run that was never disturbed, bit for bit. So does a run of several
ranks of which one is on such a host: all of them end by themselves.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hosts import missing, network, s3_at
from s3_server import BUCKET, CREDENTIALS
from small_run import make_run

from sweeps.spec import Execution

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
ONE, OTHER, SERVER, THIRD = 1, 2, 3, 4
ON_CPUS = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
# So many PUTs, of parts and of weights in turn, are reset in the middle.
RESETS = 12
MAKE_BUCKET = f"""
import botocore.session, time
client = botocore.session.get_session().create_client("s3")
for _ in range(600):
    try:
        client.create_bucket(Bucket={BUCKET!r})
        break
    except Exception:
        time.sleep(0.2)
"""
# Has the proxy end the connections of PUTs to come, whose keys hold a word, in the middle.
RESET = """
import json, os, sys, urllib.request
for number in range(int(sys.argv[1])):
    match = (".parquet", ".safetensors")[number % 2]
    told = json.dumps({"kind": "reset", "seconds": 0, "match": match}).encode()
    urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/-/arm", told).close()
"""
STRUCK = """
import json, os, urllib.request
with urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/-/state") as answer:
    print(len(json.load(answer)["struck"]))
"""
# Waits until a run has a checkpoint.
AWAIT = """
import sys, time
from sweeps.store.store import Store
folder = Store.at(sys.argv[1]).run(sys.argv[2])
until = time.monotonic() + 240
while not folder.checkpoint_steps():
    assert time.monotonic() < until
    time.sleep(0.2)
"""
# Says what a store has of a run: how attempts ended, and its rows' digests.
TELL = """
import hashlib, json, sys
from sweeps.store.schema import TABLES
from sweeps.store.store import Store
folder = Store.at(sys.argv[1]).run(sys.argv[2])
parts = {
    f"{table}/{path.name.split('.')[0]}": hashlib.sha256(path.read_bytes()).hexdigest()
    for table in TABLES for path in folder.parts(table)
}
ends = [(one["cause"], one["resumed_from"]) for one in folder.attempts()]
print(json.dumps({"attempts": ends, "parts": parts, "status": (folder.done() or {}).get("status")}))
"""
SINGLE = make_run(steps=400, execution=Execution(part_steps=20, checkpoint_share=1))
GANG = make_run(
    steps=450,
    execution=Execution(
        part_steps=20, checkpoint_share=1, processes=2, engine="deepspeed", zero_stage=2
    ),
)


class Site:
    """Hosts for runs, and a server of objects, in a network."""

    def __init__(self, net, folder, endpoint):
        self.net, self.folder, self._endpoint = net, folder, endpoint
        self._started, self._ports = [], iter(range(29500, 29600))
        self.ask(OTHER, MAKE_BUCKET)

    def environment(self, host):
        return {
            **os.environ,
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": self._endpoint,
            "DEPTHSWEEP_CACHE": str(self.folder / f"cache-{host}"),
            "DEPTHSWEEP_STALE_SECONDS": "8",
            **ON_CPUS,
            # Ranks meet on the wire of their host, whatever its name means.
            "GLOO_SOCKET_IFNAME": "eth0",
        }

    def start(self, host, *words, **environment):
        return subprocess.Popen(
            [*self.net.at(host), sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**self.environment(host), **environment},
            start_new_session=True,
        )

    def ask(self, host, script, *words):
        process = self.start(host, "-c", script, *words)
        said = process.communicate(timeout=400)[0]
        assert process.returncode == 0, said
        return said

    def await_checkpoint(self, run, host=OTHER):
        self.ask(host, AWAIT, f"s3://{BUCKET}/x", run.run_id)

    def worker(self, host, run=SINGLE, **environment):
        """Start a run on a host."""
        spec = self.folder / f"{run.run_id}.json"
        spec.write_text(run.model_dump_json())
        words = (str(spec), "--store", f"s3://{BUCKET}/x")
        self._started.append(self.start(host, "-m", "workers", *words, **environment))
        return self._started[-1]

    def gang(self, hosts, run=GANG):
        """Start a run with a rank on each host; the first one's writes."""
        meeting = {
            "MASTER_ADDR": self.net.address(hosts[0]),
            "MASTER_PORT": str(next(self._ports)),
            "WORLD_SIZE": str(len(hosts)),
            "LOCAL_RANK": "0",
        }
        return [
            self.worker(host, run, RANK=str(rank), **meeting) for rank, host in enumerate(hosts)
        ]

    def tell(self, run=SINGLE, host=OTHER):
        return json.loads(self.ask(host, TELL, f"s3://{BUCKET}/x", run.run_id).splitlines()[-1])

    def close(self):
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def site(tmp_path):
    with network(4) as net, s3_at(net, SERVER) as endpoint:
        there = Site(net, tmp_path, endpoint)
        try:
            yield there
        finally:
            there.close()


def in_a_folder(folder, run, ranks=1):
    """Carry a run out on this machine; return the parts that it leaves."""
    (folder / "run.json").write_text(run.model_dump_json())
    words = [str(folder / "run.json"), "--store", str(folder / "store")]
    start = ["-m", "workers"]
    if ranks > 1:
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *start]
    subprocess.run([sys.executable, *start, *words], check=True, env={**os.environ, **ON_CPUS})
    told = subprocess.run(
        [sys.executable, "-c", TELL, str(folder / "store"), run.run_id],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(told.stdout)["parts"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The parts of the run in a folder."""
    return in_a_folder(tmp_path_factory.mktemp("undisturbed"), SINGLE)


@pytest.fixture(scope="module")
def undisturbed_gang(tmp_path_factory):
    """The parts of the run of two ranks in a folder."""
    pytest.importorskip("deepspeed")
    return in_a_folder(tmp_path_factory.mktemp("undisturbed-gang"), GANG, 2)


def kinds(quick):
    names = ("cut", "deaf", "mute")
    return [
        pytest.param(name, id=name, marks=[] if name == quick else pytest.mark.slow)
        for name in names
    ]


def assert_gone_on_once(told, parts):
    """Assert that a run's second attempt has resumed it and ended, with the rows of one that was
    never disturbed."""
    assert told["status"] == "finished"
    assert told["parts"] == parts
    (_, begun), (ended, resumed) = told["attempts"]
    assert (begun, ended) == (0, "finished")
    assert resumed > 0


@pytest.mark.parametrize("kind", kinds("cut"))
def test_a_run_of_a_host_that_is_cut_off_goes_on_elsewhere_and_nothing_twice(
    site, undisturbed, kind
):
    first = site.worker(ONE)
    site.await_checkpoint(SINGLE)
    getattr(site.net, kind)(ONE)
    assert first.poll() is None, first.stdout.read()
    second = site.worker(OTHER)
    assert second.wait(400) == 0, second.stdout.read()
    before = site.tell()
    site.net.heal(ONE)
    # It learns that the run is another attempt's, and ends with one line.
    said = first.communicate(timeout=400)[0]
    assert first.returncode == 1, said
    assert site.tell() == before
    assert_gone_on_once(before, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut", "seconds"),
    [
        pytest.param(ONE, 40, id="40 s the rank that writes"),
        pytest.param(OTHER, 40, id="40 s the other rank"),
        pytest.param(ONE, 300, id="5 min the rank that writes"),
    ],
)
def test_a_gang_and_a_run_beside_it_go_on_elsewhere_while_a_host_is_cut_off(
    site, undisturbed, undisturbed_gang, cut, seconds
):
    gang, alone = site.gang([ONE, OTHER]), site.worker(cut)
    for run in (SINGLE, GANG):
        site.await_checkpoint(run, THIRD)
    site.net.cut(cut)
    healed = time.monotonic() + seconds
    assert [one.poll() for one in (*gang, alone)] == [None] * 3
    # Both ranks end by themselves, on either side of the cut; nobody has to come and see.
    for process in gang:
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 1, said
        assert "has been silent for 24 s" in said
    again = site.gang([THIRD, OTHER if cut == ONE else ONE])
    for process in (*again, site.worker(THIRD)):
        assert process.wait(500) == 0, process.stdout.read()
    before = [site.tell(run, THIRD) for run in (GANG, SINGLE)]
    time.sleep(max(0.0, healed - time.monotonic()))
    site.net.heal(cut)
    said = alone.communicate(timeout=400)[0]
    assert alone.returncode == 1, said
    assert [site.tell(run, THIRD) for run in (GANG, SINGLE)] == before
    assert_gone_on_once(before[0], undisturbed_gang)
    assert_gone_on_once(before[1], undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(lambda net: net.lossy(ONE, 0.2), id="a fifth is lost"),
        pytest.param(lambda net: net.slow(SERVER, 1e6), id="1 MB/s"),
        pytest.param(lambda net: net.reset(SERVER, 0.05), id="resets of packets"),
    ],
)
def test_a_bad_network_costs_time_and_nothing_else(site, undisturbed, disturb):
    process = site.worker(ONE)
    site.await_checkpoint(SINGLE)
    disturb(site.net)
    assert process.wait(580) == 0, process.stdout.read()
    site.net.heal(SERVER)
    told = site.tell()
    assert told["parts"] == undisturbed
    assert [ended for ended, _ in told["attempts"]] == ["finished"]


@pytest.mark.slow
def test_connections_that_are_reset_in_the_middle_of_a_put_cost_time_and_nothing_else(
    site, undisturbed
):
    process = site.worker(ONE)
    site.await_checkpoint(SINGLE)
    site.ask(OTHER, RESET, str(RESETS))
    assert process.wait(400) == 0, process.stdout.read()
    assert int(site.ask(OTHER, STRUCK)) == RESETS
    told = site.tell()
    assert told["parts"] == undisturbed
    assert [ended for ended, _ in told["attempts"]] == ["finished"]


@pytest.mark.slow
def test_a_host_that_is_back_after_40_seconds_finds_its_run_gone_on_or_goes_on(site, undisturbed):
    process = site.worker(ONE)
    site.await_checkpoint(SINGLE)
    site.net.cut(ONE)
    time.sleep(40)
    site.net.heal(ONE)
    assert process.wait(400) == 0, process.stdout.read()
    told = site.tell()
    assert told["parts"] == undisturbed
    assert [ended for ended, _ in told["attempts"]] == ["finished"]
