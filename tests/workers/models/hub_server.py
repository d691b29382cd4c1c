"""A process that stands in for the hub: one model, every request counted, refusals at first.

``python tests/workers/models/hub_server.py FOLDER COUNTS`` serves the files of FOLDER as the
repository ``owner/tiny`` at commit aaaa…, prints its port, and appends each request to COUNTS. The
first request is answered 429 with Retry-After, the next three 503.
"""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "a" * 40
FOLDER, COUNTS = Path(sys.argv[1]), Path(sys.argv[2])
REFUSALS = [(429, {"Retry-After": "1"}), (503, {}), (503, {}), (503, {})]
LOCK = threading.Lock()


def blob_id(path):
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        with LOCK:
            refusal = REFUSALS.pop(0) if REFUSALS else None
            status = refusal[0] if refusal else 200
            with COUNTS.open("a") as file:
                file.write(f"{self.command} {self.path.split('?')[0]} {status}\n")
        if refusal:
            self.say(status, {**refusal[1]}, b"later", body)
            return
        path = self.path.split("?")[0]
        if path.startswith("/api/models/owner/tiny/tree/"):
            files = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": blob_id(p)}
                for p in sorted(FOLDER.iterdir())
            ]
            self.say(200, {"Content-Type": "application/json"}, json.dumps(files).encode(), body)
            return
        name = path.removeprefix(f"/owner/tiny/resolve/{COMMIT}/")
        if name == path or not (FOLDER / name).is_file():
            self.say(404, {"X-Error-Code": "EntryNotFound"}, b"", body)
            return
        headers = {"ETag": f'"{blob_id(FOLDER / name)}"', "X-Repo-Commit": COMMIT}
        self.say(200, headers, (FOLDER / name).read_bytes(), body)

    def say(self, status, headers, data, body):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(server.server_port, flush=True)
    server.serve_forever()
