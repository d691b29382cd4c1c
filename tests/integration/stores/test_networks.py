"""Runs on hosts of a network with an S3 server in it (``hosts``): cut off, deaf, lossy, slow.

A run on a host that is cut off goes on elsewhere, and what the first one does afterwards replaces
nothing: rows are those of a run that was never disturbed, bit for bit.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hosts import missing, network
from s3_server import BUCKET, CREDENTIALS
from small_run import make_run

from sweeps.spec import Execution

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
ONE, OTHER, SERVER, PORT = 1, 2, 3, 5000
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
# The server keeps connections, as real ones do. With one connection a request (HTTP/1.0), of which
# a lossy network loses every third handshake and waits 1, 3, 7 s, a PUT of 20 kB took 2.0 s at 20 %
# loss, and 0.4 s on a kept one.
SERVE = """
import sys
from moto.server import main
from werkzeug.serving import WSGIRequestHandler
WSGIRequestHandler.protocol_version = "HTTP/1.1"
main(sys.argv[1:])
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


class Site:
    """Two hosts for runs, and a server of objects, in a network."""

    def __init__(self, net, folder):
        self.net, self.folder = net, folder
        self.run = make_run(steps=400, execution=Execution(part_steps=20, checkpoint_share=1))
        (folder / "run.json").write_text(self.run.model_dump_json())
        where = ("-H", net.address(SERVER), "-p", str(PORT))
        # It says a line a request: nobody reads them, and a pipe that is full would stop it.
        self._started = [self.start(SERVER, "-c", SERVE, *where, said=subprocess.DEVNULL)]
        self.ask(ONE, MAKE_BUCKET)

    def environment(self, host):
        return {
            **os.environ,
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": f"http://{self.net.address(SERVER)}:{PORT}",
            "DEPTHSWEEP_CACHE": str(self.folder / f"cache-{host}"),
            "DEPTHSWEEP_STALE_SECONDS": "8",
        }

    def start(self, host, *words, said=subprocess.PIPE):
        return subprocess.Popen(
            [*self.net.at(host), sys.executable, *words],
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(host),
            start_new_session=True,
        )

    def ask(self, host, script):
        process = self.start(host, "-c", script, f"s3://{BUCKET}/x", self.run.run_id)
        said = process.communicate(timeout=400)[0]
        assert process.returncode == 0, said
        return said

    def worker(self, host):
        """Start the run on a host."""
        words = (str(self.folder / "run.json"), "--store", f"s3://{BUCKET}/x")
        self._started.append(self.start(host, "-m", "workers", *words))
        return self._started[-1]

    def tell(self):
        return json.loads(self.ask(OTHER, TELL).splitlines()[-1])

    def close(self):
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def site(tmp_path):
    with network(3) as net:
        there = Site(net, tmp_path)
        try:
            yield there
        finally:
            there.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The parts of the run in a folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = make_run(steps=400, execution=Execution(part_steps=20, checkpoint_share=1))
    (folder / "run.json").write_text(run.model_dump_json())
    words = ["-m", "workers", str(folder / "run.json"), "--store", str(folder / "store")]
    subprocess.run([sys.executable, *words], check=True)
    told = subprocess.run(
        [sys.executable, "-c", TELL, str(folder / "store"), run.run_id],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(told.stdout)["parts"]


def kinds(quick):
    names = ("cut", "deaf", "mute")
    return [
        pytest.param(name, id=name, marks=[] if name == quick else pytest.mark.slow)
        for name in names
    ]


@pytest.mark.parametrize("kind", kinds("cut"))
def test_a_run_of_a_host_that_is_cut_off_goes_on_elsewhere_and_nothing_twice(
    site, undisturbed, kind
):
    first = site.worker(ONE)
    site.ask(OTHER, AWAIT)
    getattr(site.net, kind)(ONE)
    assert first.poll() is None, first.stdout.read()
    second = site.worker(OTHER)
    assert second.wait(400) == 0, second.stdout.read()
    before = site.tell()
    site.net.heal(ONE)
    # It learns that the run is another attempt's, and ends with one line.
    said = first.communicate(timeout=400)[0]
    assert first.returncode == 1, said
    after = site.tell()
    assert after == before
    assert after["status"] == "finished"
    assert after["parts"] == undisturbed
    (_, begun), (ended, resumed) = after["attempts"]
    assert (begun, ended) == (0, "finished")
    assert resumed > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(lambda net: net.lossy(ONE, 0.2), id="a fifth is lost"),
        pytest.param(lambda net: net.slow(SERVER, 1e6), id="1 MB/s"),
        pytest.param(lambda net: net.reset(SERVER, 0.05), id="resets within a PUT"),
    ],
)
def test_a_bad_network_costs_time_and_nothing_else(site, undisturbed, disturb):
    process = site.worker(ONE)
    site.ask(OTHER, AWAIT)
    disturb(site.net)
    assert process.wait(580) == 0, process.stdout.read()
    site.net.heal(SERVER)
    told = site.tell()
    assert told["parts"] == undisturbed
    assert [ended for ended, _ in told["attempts"]] == ["finished"]


@pytest.mark.slow
def test_a_host_that_is_back_after_40_seconds_finds_its_run_gone_on_or_goes_on(site, undisturbed):
    process = site.worker(ONE)
    site.ask(OTHER, AWAIT)
    site.net.cut(ONE)
    time.sleep(40)
    site.net.heal(ONE)
    assert process.wait(400) == 0, process.stdout.read()
    told = site.tell()
    assert told["parts"] == undisturbed
    assert [ended for ended, _ in told["attempts"]] == ["finished"]
