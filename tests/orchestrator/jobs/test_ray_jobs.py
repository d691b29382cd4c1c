"""What answers of a head mean, from a server that answers like one."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import pytest

from cluster.library import read_profile
from orchestrator.jobs.ray_jobs import JobsApiClient, read_token
from orchestrator.jobs.submission import jobs_api
from sweeps.errors import UserError


@pytest.fixture
def head():
    """Return ``serve(answers)``: path to (status, body), on loopback; what was asked is kept."""
    servers = []

    def serve(answers):
        asked = []

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append((self.path, self.headers.get("Authorization")))
                status, body = answers.get(self.path.split("?")[0], (404, ""))
                self.send_response(status)
                self.end_headers()
                self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", asked

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/api/version": (200, {"ray_version": "2.9.3"})}, "runs Ray 2.9.3, this is Ray"),
        ({"/api/version": (200, "<html>hello</html>")}, "is no Ray Jobs API"),
        ({"/api/version": (403, "")}, "refuses requests without one; put its token into"),
    ],
)
def test_a_server_that_is_not_this_ray_is_one_line(head, answers, said):
    address, _ = head({"/api/jobs/": (200, []), **answers})
    with pytest.raises(UserError, match=said) as caught:
        JobsApiClient.connect(address, None)
    assert "\n" not in str(caught.value)


def test_the_token_goes_in_a_header_and_into_no_message(head, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    version_answer = (200, {"ray_version": version("ray")})
    address, asked = head({"/api/version": version_answer, "/api/jobs/": (200, [])})
    assert JobsApiClient.connect(address, token).jobs() == []
    assert {header for _, header in asked} == {"Bearer s3cret"}
    refusing, _ = head({"/api/version": version_answer, "/api/jobs/": (401, "")})
    with pytest.raises(UserError) as caught:
        JobsApiClient.connect(refusing, token)
    assert "s3cret" not in str(caught.value)
    assert str(token) in str(caught.value)


def test_a_token_that_others_may_read_is_refused(tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret")
    token.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        read_token(token)
    assert read_token(tmp_path / "none") is None


def test_a_local_cluster_that_is_not_up_is_said_with_its_port(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    profile = read_profile("local").model_copy(update={"port": 6477})
    with pytest.raises(UserError, match=r"no local cluster is up on port 6477; .*its profile"):
        jobs_api(profile)


@pytest.mark.parametrize(
    ("kind", "said"), [("aws", "ray dashboard cluster.yaml"), ("static", "ray up")]
)
def test_a_cluster_that_is_not_up_is_said_with_how_it_is_started(kind, said, tmp_path):
    here = {"jobs_address": "http://127.0.0.1:9", "token_file": str(tmp_path / "none")}
    profile = read_profile(kind).model_copy(update=here)
    with pytest.raises(UserError, match=f"no Ray cluster answers at http://127.0.0.1:9 .*{said}"):
        jobs_api(profile)
