"""The served report: fresh when the store has changed, whole when reading failed, for loopback."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run

from orchestrator.display.live_report import LiveReport, serve
from sweeps.reading.store_state import StoreState
from sweeps.report.store_page import page_of
from sweeps.store.store import Store

TOKEN = "told-by-the-address"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.at(str(tmp_path / "store"))
    save_sweep(store, "toy", [run_spec(seed=0), run_spec(seed=1)])
    write_run(store, run_spec(seed=0), [0.1, 0.2])
    return store


@pytest.fixture
def port(store: Store) -> Iterator[int]:
    report = LiveReport(
        StoreState(store, "toy"),
        lambda state: page_of("toy", str(store.root), include_running=True, live=state),
    )
    server = serve(report, TOKEN)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def get(
    port: int, path: str, host: str | None = None, cookie: str = f"depthsweep={TOKEN}"
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Host": host or f"127.0.0.1:{port}", "Cookie": cookie}
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    if answer.status == 200:
        assert f"depthsweep={TOKEN}; HttpOnly" in (answer.getheader("Set-Cookie") or "")
    return answer.status, answer.read().decode()


def test_the_page_follows_the_store(store: Store, port: int) -> None:
    status, before = get(port, "/")
    assert status == 200
    _, state = get(port, "/state")
    assert state in before
    write_run(store, run_spec(seed=1), [0.1, 0.2])
    _, changed = get(port, "/state")
    assert changed != state
    _, after = get(port, "/")
    assert changed in after
    assert "<b>1</b><span>pending" in before
    assert "<b>2</b><span>finished" in after
    # It can be switched to other metrics, as a report in a file can.
    assert '<option value="cka_distance">' in after


def test_only_this_machine_is_answered(port: int) -> None:
    assert get(port, "/", host="evil.example")[0] == 403
    assert get(port, "/state", host=f"localhost:{port}")[0] == 200
    # A tunnel has a port of its own.
    assert get(port, "/state", host="localhost:9000")[0] == 200
    assert get(port, "/../etc/passwd")[0] == 404
    # Nothing is computed for who asks: there is no query to bound.
    assert get(port, "/query?sql=SELECT+1")[0] == 404


def test_only_who_has_the_token_is_answered(port: int) -> None:
    for cookie in ("", "depthsweep=guess", "other=1"):
        assert get(port, "/", cookie=cookie)[0] == 403
        assert get(port, "/state", cookie=cookie)[0] == 403
        assert get(port, "/?token=guess", cookie=cookie)[0] == 403
        assert get(port, f"/?token={TOKEN}", cookie=cookie)[0] == 200


def test_a_page_that_cannot_be_made_leaves_the_one_before() -> None:
    made: list[str] = []

    def make(state: str) -> str:
        if state == "broken":
            raise OSError("a part vanished")
        made.append(state)
        return f"page of {state}"

    states = ["broken", "one", "broken", "one", "two"]
    report = LiveReport(lambda: states.pop(0), make)
    with pytest.raises(OSError, match="vanished"):
        report.page()
    assert [report.page() for _ in range(4)] == [
        "page of one",
        "page of one",
        "page of one",
        "page of two",
    ]
    assert made == ["one", "two"]


def test_a_report_in_a_file_asks_nobody(store: Store) -> None:
    assert "fetch('/state')" not in page_of("toy", str(store.root))
