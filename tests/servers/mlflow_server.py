"""A real MLflow server as a process of its own on loopback."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

from s3_server import await_port, free_port

# Nothing of it goes elsewhere, and it starts no further processes.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


@contextmanager
def serve_mlflow(folder):
    """Yield the tracking URI of a server that keeps everything in a folder."""
    port = free_port()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.sqlite", "--workers", "1"),
            *("--artifacts-destination", f"{folder}/artifacts"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **QUIET},
        start_new_session=True,
    )
    try:
        await_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
