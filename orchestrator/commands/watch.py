"""``depthsweep watch``: the report of a sweep, live."""

from __future__ import annotations

import secrets

import click

from orchestrator.shell.completion import SWEEP
from sweeps.errors import UserError


@click.command()
@click.argument("name", shell_complete=SWEEP)
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option(
    "--port", default=8777, show_default=True, type=click.IntRange(0, 65535), help="0: a free one."
)
@click.option("--claims", "file", metavar="FILE", help="Default: those the sweep came with.")
@click.option("--metric", default="procrustes", show_default=True, help="Which change is shown.")
def command(name: str, store: str, port: int, file: str | None, metric: str) -> None:
    """Serve the report of sweep NAME on this machine, refreshed from the store while it runs.

    The address that is printed has a token: whoever has it can read the page, others of this
    machine cannot. From another one: ssh -L 9000:127.0.0.1:8777 HOST, and 9000 in the address.
    Rows of runs that have not ended are shown in the training curves. Ctrl-C stops.
    """
    from orchestrator.display.live_report import HOST, LiveReport, serve
    from sweeps.reading.store_state import StoreState
    from sweeps.report.store_page import page_of
    from sweeps.store.store import Store

    place = Store.at(store)
    state = StoreState(place, name)
    state()
    report = LiveReport(
        state,
        lambda state: page_of(name, store, file, metric, include_running=True, live=state),
    )
    report.page()
    token = secrets.token_urlsafe(16)
    try:
        server = serve(report, token, port)
    except OSError as error:
        raise UserError(
            f"--port {port}: cannot be listened on ({error.strerror}); give another, or 0"
        ) from None
    click.echo(f"http://{HOST}:{server.server_port}/?token={token}  (Ctrl-C stops)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("stopped")
    finally:
        server.server_close()
