"""A web server as a process of its own on loopback, which keeps what is posted to it.

``python notice_server.py PORT FOLDER``: what is posted to ``/kept`` is kept as a file and answered
with 200; ``/broken`` answers 500; ``/silent`` never answers.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from s3_server import await_port, free_port


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/silent":
            time.sleep(3600)
        if self.path.split("?")[0] == "/kept":
            name = f"{time.monotonic_ns()}.json"
            Path(sys.argv[2], f".{name}").write_bytes(body)
            Path(sys.argv[2], f".{name}").rename(Path(sys.argv[2], name))
        self.send_response(500 if self.path == "/broken" else 200)
        self.end_headers()

    def log_message(self, *_):
        """Nobody reads it."""


@contextmanager
def serve_notices(folder):
    """Yield the URL of a server that keeps what it is told in a folder."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, __file__, str(port), str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        start_new_session=True,
    )
    try:
        await_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
