"""The report of a sweep on loopback, made anew when the store has changed.

The page asks ``/state`` every few seconds and reloads itself when the answer differs from the
state it was made from. Only this machine can ask: the server binds 127.0.0.1 and answers to no
other name, so that no page of another site can read it through a name that resolves here; and of
those on this machine only who has the token.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

HOST = "127.0.0.1"
COOKIE = "depthsweep"


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


def serve(report: LiveReport, token: str, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of ``report``, listening; port 0 takes a free one.

    It answers who has ``token``, which its address carries (``/?token=…``) and a cookie after that:
    others of the machine can connect, too. The port in a request's Host is not looked at, since a
    tunnel has one of its own; the name is, so that no page of another host is answered.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, asked = self.path.partition("?")
            name = (self.headers.get("Host") or "").rpartition(":")[0]
            if name not in (HOST, "localhost"):
                self._answer(403, "text/plain", "this page is for this machine alone")
            elif not self._has_token(asked):
                self._answer(403, "text/plain", "open the address that `depthsweep watch` printed")
            elif path == "/":
                self._report()
            elif path == "/state":
                self._answer(200, "text/plain", report.state())
            else:
                self._answer(404, "text/plain", "only / and /state are here")

        def _has_token(self, asked: str) -> bool:
            cookies = SimpleCookie(self.headers.get("Cookie") or "")
            said = [*parse_qs(asked).get("token", []), *(one.value for one in cookies.values())]
            return any(secrets.compare_digest(one.encode(), token.encode()) for one in said)

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
            self.send_header("Referrer-Policy", "no-referrer")
            if code == 200:
                self.send_header("Set-Cookie", f"{COOKIE}={token}; HttpOnly; SameSite=Strict")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the terminal shows the address and nothing else."""

    server = ThreadingHTTPServer((HOST, port), Handler)
    server.daemon_threads = True
    return server
