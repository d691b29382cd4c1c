"""A proxy before an S3 server that, as told, fails, is slow, loses answers, is late with a PUT or
resets its connection in the middle of one. It keeps connections, which the server of moto does not.

``python tests/servers/s3_proxy.py PORT TARGET [ADDRESS]``; the server is on loopback, and so is the
proxy without an address. Requests below ``/-/`` are to the proxy itself:
``POST /-/arm`` with a trouble as JSON (``kind``, ``seconds``, and ``match`` for those of one PUT),
answered by its number, and ``GET /-/state``: which have struck, and how many PUTs are held.
"""

import http.client
import json
import random
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>said by a test</Message></Error>"
# Of all requests while the server fails, and the longest delay while it is slow, in seconds.
FAILING_SHARE, LONGEST_DELAY = 0.75, 0.5


class Troubles:
    """What is to befall requests: some for a while, some the next PUT that matches."""

    def __init__(self):
        self._lock = threading.Lock()
        self._armed, self._struck, self._number, self.held = {}, [], 0, 0

    def arm(self, trouble):
        with self._lock:
            self._number += 1
            until = time.monotonic() + trouble["seconds"]
            self._armed[self._number] = {**trouble, "until": until}
            return self._number

    def of(self, method, path):
        """Return the troubles of a request; one of a single PUT is of no other one then."""
        found, now = [], time.monotonic()
        with self._lock:
            for number, trouble in list(self._armed.items()):
                if trouble["kind"] in ("fail", "slow"):
                    if now > trouble["until"]:
                        del self._armed[number]
                        continue
                elif method == "PUT" and trouble["match"] in path and not found:
                    del self._armed[number]
                else:
                    continue
                found.append(trouble)
                if number not in self._struck:
                    self._struck.append(number)
        return found

    def state(self):
        with self._lock:
            return {"struck": self._struck, "held": self.held}

    def hold(self, change):
        with self._lock:
            self.held += change


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    troubles = Troubles()
    target = 0

    def do_GET(self):
        if self.path.startswith("/-/"):
            body = self._body()
            told = self.troubles.arm(json.loads(body)) if body else self.troubles.state()
            return self._answer(200, [], json.dumps(told).encode())
        troubles = self.troubles.of(self.command, self.path)
        if any(trouble["kind"] == "reset" for trouble in troubles):
            return self._reset()
        body = self._body()
        for trouble in troubles:
            kind = trouble["kind"]
            if kind == "fail" and random.random() < FAILING_SHARE:
                return self._answer(503, [("Content-Type", "application/xml")], SLOW_DOWN)
            if kind == "slow":
                time.sleep(random.random() * LONGEST_DELAY)
            if kind == "lose":
                self._forward(body)
                return self._hang_up()
            if kind == "hold":
                self.troubles.hold(1)
                self._hang_up()
                time.sleep(trouble["seconds"])
                self._forward(body)
                return self.troubles.hold(-1)
        status, headers, answer = self._forward(body)
        return self._answer(status, headers, answer)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _body(self):
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _forward(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in ("transfer-encoding", "content-length", "expect"):
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status, headers, body):
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def _hang_up(self):
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _reset(self):
        """Take half of what is sent, and end the connection as a router that has lost it does."""
        size = self.headers.get("X-Amz-Decoded-Content-Length") or self.headers["Content-Length"]
        self.rfile.read(int(size) // 2)
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for end in (self.rfile, self.wfile, self.connection):
            end.close()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_):
        """A client that has given up is what this is about."""


if __name__ == "__main__":
    Handler.target = int(sys.argv[2])
    address = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"
    Server((address, int(sys.argv[1])), Handler).serve_forever()
