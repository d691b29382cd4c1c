"""What a cloud's metadata say of a machine's end, by servers that answer as EC2 and GCE do."""

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from workers.ranks import spot_notice
from workers.ranks.spot_notice import amazon, google, watch

TOKEN = "IMDSv2"


class Metadata(BaseHTTPRequestHandler):
    """EC2's and GCE's metadata; ``taken`` says whether the machine is taken back, ``down`` that the
    service has a bad moment."""

    taken, down = False, 0

    def do_PUT(self):
        lasts = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200 if self.path == "/latest/api/token" and lasts else 403, TOKEN)

    def do_GET(self):
        kind = type(self)
        if kind.down:
            kind.down -= 1
            self.answer(503, "")
        elif self.path == "/latest/meta-data/spot/instance-action":
            known = self.headers["X-aws-ec2-metadata-token"] == TOKEN
            said = '{"action": "terminate", "time": "2026-11-26T22:00:00Z"}'
            self.answer((200 if kind.taken else 404) if known else 401, said)
        elif self.path == "/computeMetadata/v1/instance/preempted":
            known = self.headers["Metadata-Flavor"] == "Google"
            self.answer(200 if known else 403, "TRUE" if kind.taken else "FALSE")
        else:
            self.answer(404, "")

    def answer(self, code, text):
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Nobody reads it."""


@pytest.fixture
def metadata(monkeypatch):
    """Return the metadata of a machine on loopback, of which the clients are told."""
    kind = type("Told", (Metadata,), {})
    monkeypatch.setattr(spot_notice, "POLL_SECONDS", 0.05)
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{host}/")
        monkeypatch.setenv("GCE_METADATA_HOST", host)
        yield kind
        server.shutdown()


@pytest.mark.parametrize("cloud", [amazon, google])
def test_a_machine_is_taken_back_when_its_metadata_say_so(metadata, cloud):
    assert not cloud()
    metadata.taken = True
    assert cloud()


@pytest.mark.parametrize("cloud", [amazon, google])
def test_a_service_that_does_not_answer_for_a_moment_is_asked_again(metadata, cloud):
    metadata.down, metadata.taken = 3, True
    watch(cloud)
    assert metadata.down == 0


def test_ranks_are_told_as_long_as_the_machine_is_there(metadata, monkeypatch, tmp_path):
    monkeypatch.setattr(spot_notice.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(spot_notice, "LAST_SECONDS", 0.3)
    told = []
    monkeypatch.setattr(spot_notice, "leave", told.append)
    metadata.taken = True
    assert spot_notice.main("gcp") == 0
    assert len(told) > 1


def test_one_process_of_a_machine_watches(metadata, tmp_path):
    words = [sys.executable, "-m", "workers.ranks.spot_notice", "aws"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    first = subprocess.Popen(words, env=environment)
    try:
        while not list(tmp_path.glob("depthsweep-spot-notice-*")):
            assert first.poll() is None
            time.sleep(0.05)
        second = subprocess.Popen(words, env=environment)
        done = [second, first]
        while all(process.poll() is None for process in done):
            time.sleep(0.05)
        assert [process.poll() for process in done].count(0) == 1
        second.kill()
    finally:
        first.kill()
        first.wait()
        second.wait()
    assert metadata.taken is False
