"""The report of a sweep on loopback, made anew when the store has changed.

The page asks ``/state`` every few seconds and reloads itself when the answer differs from the
state it was made from. Only this machine can ask: the server binds 127.0.0.1 and answers to no
other name, so that no page of another site can read it through a name that resolves here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"


class LiveReport:
    """The newest page, and the state of the store that it was made from."""

    def __init__(self, state: Callable[[], str], make: Callable[[str], str]) -> None:
        self._state = state
        self._make = make
        self._lock = threading.Lock()
        self._page: str | None = None
        self._made_from = ""

    def state(self) -> str:
        return self._state()

    def page(self) -> str:
        """Return the page of the store as it is now.

        A run that starts over removes its rows while they are read: then the page before is kept,
        and the next request tries again. Raises what reading raised when there is none before.
        """
        with self._lock:
            state = self._state()
            if self._page is None or state != self._made_from:
                try:
                    self._page = self._make(state)
                    self._made_from = state
                except Exception:
                    if self._page is None:
                        raise
            return self._page


def serve(report: LiveReport, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of ``report``, listening; port 0 takes a free one."""

    names: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host") not in names:
                self._answer(403, "text/plain", "this page is for this machine alone")
            elif self.path == "/":
                self._report()
            elif self.path == "/state":
                self._answer(200, "text/plain", report.state())
            else:
                self._answer(404, "text/plain", "only / and /state are here")

        def _report(self) -> None:
            try:
                self._answer(200, "text/html", report.page())
            except Exception as error:
                detail = " ".join(str(error).split())
                self._answer(503, "text/plain", f"the report cannot be made yet: {detail}")

        def _answer(self, code: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the terminal shows the address and nothing else."""

    server = ThreadingHTTPServer((HOST, port), Handler)
    server.daemon_threads = True
    names += [f"{name}:{server.server_port}" for name in (HOST, "localhost")]
    return server
