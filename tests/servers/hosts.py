"""Hosts of a network of their own, as namespaces of this kernel: cut off, lossy, slow, reset.

As root, with Debian's ``iproute2`` and ``nftables``. Nothing of it is seen from the machine's own
network; all of it goes with the ``with``.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager

PROGRAMS = ("ip", "nft", "tc")


def missing():
    """Return why no network can be made here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)}: not installed (Debian: iproute2 nftables)"
    if os.getuid() != 0:
        return "namespaces want root"
    name = f"ds{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here: {' '.join(made.stderr.split())}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


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
        self._run("tc", "-n", f"{self._name}-{host}", *self._queue("eth0"), "tbf", *bits)
        self._run("tc", "-n", f"{self._name}-sw", *self._queue(f"port{host}"), "tbf", *bits)

    def heal(self, host):
        """Undo all of that but ``slow``."""
        self._ip("-n", f"{self._name}-sw", "link", "set", f"port{host}", "up")
        self._run(*self.at(host), "nft", "flush", "ruleset")

    @staticmethod
    def _queue(device):
        return ("qdisc", "add", "dev", device, "root")

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
