"""Where the stores of a campaign lie, a small disk or a bucket, and what can befall it there."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sweeps.files.whole_files import read_json, write_json
from sweeps.store.store import Store
from tests.faults import forked
from tests.faults.harm.on_disk import Disk
from tests.faults.schedule import Fault
from tests.servers import s3_proxy
from tests.servers.hosts import PORT, Network, network, s3_at
from tests.servers.object_servers import SeaweedFS, serving
from tests.servers.s3_server import BUCKET, CREDENTIALS, Wire, environment, serve_s3

Hold = ExitStack
# A look at the server costs it a request.
LOOK_SECONDS = 0.3
# What PUT it is that an answer is lost of, or that is late, by a part of its key.
PUTS = (".parquet", "attempts/", "manifest.json", ".safetensors", "DONE.json")
TROUBLES = {
    "failing_requests": "fail",
    "slow_requests": "slow",
    "lost_reply": "lose",
    "late_put": "hold",
    "reset_put": "reset",
}
# Of a network: the hosts that runs are on, the server's, and who watches; bytes a second of a slow
# server, and the share of packets that a lossy host loses.
RUN_HOSTS, SERVER, WATCHER = (1, 2, 3), 4, 5
SLOW_RATE, LOST_SHARE = 1e6, 0.2


@dataclass
class Befallen:
    """What became of a fault: what ends it, after ``seconds``, and whether it has struck yet."""

    seconds: float = 0.0
    hold: Hold | None = None
    struck: Callable[[], bool] = lambda: True


class Ground(Protocol):
    """One store of a campaign: ``location``, its id, and as a folder where it is one.

    ``befalls`` are the kinds of faults that it applies itself. ``hosts`` of ``net`` are what ranks
    are spread over, where they are not on this machine itself.
    """

    net: Network | None
    hosts: tuple[int, ...]

    befalls: Collection[str]
    location: str
    identity: str
    name: str
    store: Store | None

    def ended(self, run_id: str) -> bool:
        """Return whether a run has a result."""

    def befall(self, fault: Fault) -> Befallen | None:
        """Apply a fault of the place; None where that is not possible now."""

    @contextmanager
    def disturbed(self, how: str, host: int) -> Iterator[None]:
        """Have a host of the net cut off, deaf, mute or lossy."""

    def settle(self) -> None:
        """Return once nothing of a fault is still to come."""

    def remove(self) -> None: ...


class OnThisMachine:
    """What a ground without a network has of one."""

    net: Network | None = None
    hosts: tuple[int, ...] = ()

    @contextmanager
    def disturbed(self, how: str, host: int) -> Iterator[None]:
        raise NotImplementedError(f"{how} of {host}: no network here")


class FolderGround(OnThisMachine):
    """A store in a folder of a disk, with a reference's cache."""

    def __init__(self, disk: Disk, name: str, cache: Path) -> None:
        self.name, self.disk = name, disk
        # Without a disk of its own writes are made to fail instead.
        self.befalls = ("full_disk", "read_only_disk") if disk.mounted else ()
        root = disk.path / name
        root.mkdir()
        (root / "cache").symlink_to(cache)
        self.store: Store | None = Store(root)
        self.location, self.identity = str(root), Store(root).identify()

    def ended(self, run_id: str) -> bool:
        return Store(Path(self.location)).run(run_id).done() is not None

    def befall(self, fault: Fault) -> Befallen | None:
        if self.disk.troubled:
            return None
        hold = Hold()
        if fault.kind == "full_disk":
            hold.enter_context(self.disk.full())
        elif not hold.enter_context(self.disk.read_only()):
            hold.close()
            return None
        return Befallen(fault.hold, hold)

    def settle(self) -> None:
        return

    def remove(self) -> None:
        shutil.rmtree(self.location)


class Bucket:
    """An S3 server as a process, behind a proxy as another one."""

    net: Network | None = None

    def __init__(self, port: int) -> None:
        self.port = port
        self.wire = Wire(port, Path(s3_proxy.__file__))
        self.proxy = f"http://127.0.0.1:{self.wire.port}"
        self._connect(f"http://127.0.0.1:{port}")

    def _connect(self, endpoint: str) -> None:
        import botocore.session

        self.cut = False
        session = botocore.session.get_session()
        session.set_credentials(
            CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
        )
        # A client without threads: this process forks.
        self.client = session.create_client("s3", region_name="us-east-1", endpoint_url=endpoint)

    def environment(self, cache: Path, *, directly: bool = False) -> dict[str, str]:
        """Return how a worker reaches it, or whoever judges: not through the proxy."""
        return environment(self.port if directly else self.wire.port, cache)

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def arm(self, kind: str, seconds: float, match: str = "") -> int:
        trouble = {"kind": kind, "seconds": seconds, "match": match}
        return int(self._ask("arm", json.dumps(trouble).encode()))

    def state(self) -> dict[str, Any]:
        return dict(self._ask("state"))

    @contextmanager
    def severed(self) -> Iterator[None]:
        """Cut the wire to the server."""
        self.cut = True
        self.wire.cut()
        try:
            yield
        finally:
            self.wire.mend()
            self.cut = False

    def _ask(self, what: str, data: bytes | None = None) -> Any:
        url = f"{self.proxy}/-/{what}"
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as answer:
            return json.load(answer)


@contextmanager
def a_bucket() -> Iterator[Bucket]:
    with serve_s3() as port:
        bucket = Bucket(port)
        try:
            yield bucket
        finally:
            bucket.wire.cut()


@contextmanager
def a_bucket_of_seaweedfs() -> Iterator[Bucket]:
    with tempfile.TemporaryDirectory() as folder, serving(SeaweedFS, Path(folder) / "s3") as server:
        bucket = Bucket(server.port)
        try:
            yield bucket
        finally:
            bucket.wire.cut()


class NetworkBucket(Bucket):
    """The server on a host of a network that this process is on a host of, too; ranks are not."""

    def __init__(self, net: Network, endpoint: str) -> None:
        self.net, self.proxy, self.port = net, endpoint, PORT
        self._connect(endpoint)
        until = time.monotonic() + 60
        while True:
            try:
                self.client.create_bucket(Bucket=BUCKET)
                return
            except Exception:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def environment(self, cache: Path, *, directly: bool = False) -> dict[str, str]:
        del directly  # there is one way
        return {**environment(self.port, cache), "AWS_ENDPOINT_URL": self.proxy}


@contextmanager
def a_network() -> Iterator[Bucket]:
    """Yield a server on a host of a network; this process moves there, too."""
    with network(WATCHER) as net, s3_at(net, SERVER) as endpoint:
        net.enter(WATCHER)
        yield NetworkBucket(net, endpoint)


class BucketGround(OnThisMachine):
    """A store below a prefix of a bucket."""

    befalls = (*TROUBLES, "cut_wire", "slow_server")
    store: Store | None = None

    def __init__(self, bucket: Bucket, name: str, folder: Path) -> None:
        self.name, self.bucket, self.net = name, bucket, bucket.net
        self.location = f"s3://{BUCKET}/{name}"
        answer = folder / "answer.json"
        forked.in_a_child(
            lambda: write_json(answer, {"id": Store.at(self.location).identify()}),
        )
        self.identity = str(read_json(answer)["id"])
        self._ended: set[str] = set()
        self._looked = 0.0
        self._puts = 0
        self.hosts = RUN_HOSTS if bucket.net is not None else ()

    def ended(self, run_id: str) -> bool:
        if run_id not in self._ended and time.monotonic() > self._looked + LOOK_SECONDS:
            keys = self.bucket.keys(f"{self.name}/runs/")
            self._ended = {key.split("/")[2] for key in keys if key.endswith("/DONE.json")}
            self._looked = time.monotonic()
        return run_id in self._ended

    def befall(self, fault: Fault) -> Befallen | None:
        bucket = self.bucket
        if bucket.cut or self._puts:
            return None
        if fault.kind in ("cut_wire", "slow_server"):
            hold = Hold()
            cut = fault.kind == "cut_wire"
            hold.enter_context(bucket.severed() if cut else self.disturbed("slow", SERVER))
            return Befallen(3 * fault.hold, hold)
        kind = TROUBLES[fault.kind]
        one = kind in ("lose", "hold", "reset")
        number = bucket.arm(kind, 3 * fault.hold, PUTS[int(fault.pick * len(PUTS))] if one else "")
        self._puts += one

        def struck() -> bool:
            found = not bucket.cut and number in bucket.state()["struck"]
            self._puts -= one and found
            return found

        return Befallen(struck=struck)

    def settle(self) -> None:
        until = time.monotonic() + 60
        while self.bucket.state()["held"] and time.monotonic() < until:
            time.sleep(0.05)

    @contextmanager
    def disturbed(self, how: str, host: int) -> Iterator[None]:
        assert self.net is not None
        arguments = {"lossy": (LOST_SHARE,), "slow": (SLOW_RATE,)}.get(how, ())
        getattr(self.net, how)(host, *arguments)
        try:
            yield
        finally:
            self.net.heal(host)

    def remove(self) -> None:
        with suppress(ValueError):
            for key in self.bucket.keys(f"{self.name}/"):
                self.bucket.client.delete_object(Bucket=BUCKET, Key=key)
