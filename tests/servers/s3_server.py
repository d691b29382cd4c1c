"""An S3-compatible server as a process of its own on loopback, and a way to cut it off.

``python tests/s3_server.py PORT TARGET`` is the wire to it: killing that process is, for a client,
killing the server, while what it stores is there when the wire is started again.
"""

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "study"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def await_port(port, seconds=120):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def serve_s3():
    """Yield the port of a server with an empty bucket."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await_port(port)
        import botocore.session

        session = botocore.session.get_session()
        session.set_credentials(
            CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
        )
        client = session.create_client(
            "s3", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{port}"
        )
        client.create_bucket(Bucket=BUCKET)
        yield port
    finally:
        server.kill()
        server.wait()


def deny(port, action):
    """Have a server ask for rights from now on; return the credentials of a user who may do all in
    S3 but one action."""
    import botocore.session

    session = botocore.session.get_session()
    session.set_credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    iam = session.create_client(
        "iam", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{port}"
    )
    iam.create_user(UserName="writer")
    rights = [
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {"Effect": "Deny", "Action": action, "Resource": "*"},
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": rights})
    iam.put_user_policy(UserName="writer", PolicyName="writes", PolicyDocument=policy)
    key = iam.create_access_key(UserName="writer")["AccessKey"]
    kind = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset-auth", b"0", kind)
    urllib.request.urlopen(request).close()
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }


@contextmanager
def answering(status, code):
    """Yield the port of a server that answers every request alike, as S3 tells of an error."""
    body = f"<Error><Code>{code}</Code><Message>said by a test</Message></Error>".encode()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # clients ask before they send a body

        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def environment(port, cache):
    """Return what tells a client of the server, and depthsweep of its cache."""
    return {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "DEPTHSWEEP_CACHE": str(cache),
    }


class Wire:
    """A port that leads to a server until it is cut, by a process that runs ``script``."""

    def __init__(self, target, script=Path(__file__)):
        self._script = script
        self.port = free_port()
        self._target = target
        self.mend()

    def mend(self):
        self._process = subprocess.Popen(
            [sys.executable, str(self._script), str(self.port), str(self._target)]
        )
        await_port(self.port)

    def cut(self):
        self._process.kill()
        self._process.wait()


def forward(port, target):
    with socket.create_server(("127.0.0.1", port)) as listening:
        while True:
            near, _ = listening.accept()
            far = socket.create_connection(("127.0.0.1", target))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()


def pump(source, sink):
    try:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
    finally:
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    forward(int(sys.argv[1]), int(sys.argv[2]))
