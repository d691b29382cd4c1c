"""Hosts of a network of their own, as namespaces of this kernel: cut off, lossy, slow, reset.

As root, with Debian's ``iproute2`` and ``nftables``. Nothing of it is seen from the machine's own
network; all of it goes with the ``with``.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("ip", "nft", "tc")
CLONE_NEWNET = 0x40000000
# Where an S3 server on a host listens, and its proxy's back side on that host's own loopback.
PORT, INNER = 5000, 5001
S3_PROXY = Path(__file__).with_name("s3_proxy.py")


def missing():
    """Return why no network can be made here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)}: not installed (Debian: iproute2 nftables)"
    if os.getuid() != 0:
        return "namespaces want root"
    name = f"ds{os.getpid()}-try"
    # To run something in one takes more rights than to make it.
    for words in (("netns", "add", name), ("netns", "exec", name, "true")):
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode:
            break
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return (
        f"no network namespaces here: {' '.join(done.stderr.split())}" if done.returncode else None
    )


class Network:
    """Hosts 1, 2, … at 10.99.0.N on one switch."""

    def __init__(self, hosts):
        self._name = f"ds{os.getpid()}"
        self.hosts = range(1, hosts + 1)

    def address(self, host):
        return f"10.99.0.{host}"

    def at(self, host):
        """Return what a command begins with that is to run on a host."""
        return ["ip", "netns", "exec", f"{self._name}-{host}"]

    def namespace(self, host):
        """Return the file of a host's network namespace."""
        return f"/run/netns/{self._name}-{host}"

    def enter(self, host):
        """Move this process, which has one thread, to a host."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(self.namespace(host)) as there:
            if libc.setns(there.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def up(self):
        switch = f"{self._name}-sw"
        self._ip("netns", "add", switch)
        self._ip("-n", switch, "link", "add", "br0", "type", "bridge")
        self._ip("-n", switch, "link", "set", "br0", "up")
        for host in self.hosts:
            name, port = f"{self._name}-{host}", f"port{host}"
            self._ip("netns", "add", name)
            self._ip("-n", name, "link", "set", "lo", "up")
            pair = ("type", "veth", "peer", "name", "eth0", "netns", name)
            self._ip("-n", switch, "link", "add", port, *pair)
            self._ip("-n", switch, "link", "set", port, "master", "br0", "up")
            self._ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            self._ip("-n", name, "link", "set", "eth0", "up")

    def down(self):
        for name in (*(f"{self._name}-{host}" for host in self.hosts), f"{self._name}-sw"):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def cut(self, host):
        """Take a host off the net, both ways."""
        self._ip("-n", f"{self._name}-sw", "link", "set", f"port{host}", "down")

    def deaf(self, host):
        """Have nothing reach a host; what it sends arrives."""
        self._rule(host, "input", "drop")

    def mute(self, host):
        """Have nothing leave a host."""
        self._rule(host, "output", "drop")

    def lossy(self, host, share):
        """Lose a share of what reaches a host, and of what leaves it."""
        for hook in ("input", "output"):
            self._rule(host, hook, f"numgen random mod 100 < {round(100 * share)} drop")

    def reset(self, host, share):
        """Have a share of the full packets that reach a host end their connection: in the middle of
        what is sent."""
        what = f"meta length > 1000 numgen random mod 100 < {round(100 * share)}"
        self._rule(host, "input", f"ip protocol tcp {what} reject with tcp reset")

    def slow(self, host, rate):
        """Let a host send and be sent so many bytes a second."""
        bits = ("rate", f"{round(8 * rate / 1000)}kbit", "burst", "32kb", "latency", "400ms")
        for words in self._queues(host):
            self._run("tc", "-n", words[0], "qdisc", "replace", *words[1:], "tbf", *bits)

    def heal(self, host):
        """Undo all of that."""
        self._ip("-n", f"{self._name}-sw", "link", "set", f"port{host}", "up")
        self._run(*self.at(host), "nft", "flush", "ruleset")
        for words in self._queues(host):
            # There is none where nothing was slow.
            subprocess.run(["tc", "-n", words[0], "qdisc", "del", *words[1:]], capture_output=True)

    def _queues(self, host):
        """Return where what a host sends waits, and what is sent to it."""
        own, switch = f"{self._name}-{host}", f"{self._name}-sw"
        return (own, "dev", "eth0", "root"), (switch, "dev", f"port{host}", "root")

    def _rule(self, host, hook, what):
        nft = (*self.at(host), "nft")
        chain = f"{{ type filter hook {hook} priority 0; }}"
        self._run(*nft, "add", "table", "inet", "faults")
        self._run(*nft, "add", "chain", "inet", "faults", hook, chain)
        # What a host says to itself always arrives.
        own = {"input": "iifname", "output": "oifname"}[hook]
        self._run(*nft, "add", "rule", "inet", "faults", hook, f'{own} != "lo" {what}')

    def _ip(self, *words):
        self._run("ip", *words)

    @staticmethod
    def _run(*words):
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


@contextmanager
def network(hosts):
    """Yield a network of so many hosts."""
    made = Network(hosts)
    try:
        made.up()
        yield made
    finally:
        made.down()


@contextmanager
def s3_at(net, host):
    """Yield the URL of an S3 server on a host, behind ``s3_proxy``, and with no bucket yet.

    The proxy keeps connections, as real servers do. Moto's ends them after each request, and at
    20 % loss every third handshake fails and waits 1, 3, 7 s: PUTs of 20 kB took 2.1 s each, and
    0.46 s on a kept connection (SeaweedFS).
    """
    words = (
        ("-m", "moto.server", "-H", "127.0.0.1", "-p", str(INNER)),
        (str(S3_PROXY), str(PORT), str(INNER), net.address(host)),
    )
    # They say a line a request: nobody reads them, and a pipe that is full would stop them.
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen([*net.at(host), sys.executable, *one], **silent) for one in words]
    try:
        yield f"http://{net.address(host)}:{PORT}"
    finally:
        for process in started:
            process.kill()
            process.wait()
