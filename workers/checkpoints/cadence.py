"""When a checkpoint is due, and what a notice that the machine is taken away leaves time for.

Pure arithmetic without torch: the driver plans with it, and a run keeps to it.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
# A number in a checkpoint, in float32.
BYTES_A_NUMBER = 4
# Bytes a second that the slowest disks take; until a run has measured its own.
LEAST_RATE = 100e6
# What a cloud gives a machine that it takes back, at the least.
SPOT_NOTICE_SECONDS = 30.0
# A checkpoint is given so many times what the last one took: others may use the disk by then.
MARGIN = 2.0


@dataclass
class Cadence:
    """Keeps checkpoints to a share of a run's time: 0 for none, 1 for one after every part.

    ``seconds`` is what the last one took, from its beginning ``began`` until it counted.
    """

    share: float
    seconds: float | None = None
    began: float = 0.0

    def due(self, now: float) -> bool:
        """Return whether one may begin: the last one's seconds are within the share of the time
        since it began. The first always may."""
        if self.share in (0.0, 1.0):
            return bool(self.share)
        return self.seconds is None or self.seconds <= self.share * (now - self.began)

    def took(self, began: float, ended: float) -> None:
        """Take in that a checkpoint has been made."""
        self.began, self.seconds = began, ended - began


def checkpoint_bytes(parameters: int, kept: int = 2) -> int:
    """Return the bytes of a checkpoint of a model: of each parameter its weight, and the numbers
    that the optimizer's rule keeps of it."""
    return BYTES_A_NUMBER * (1 + kept) * parameters


def seconds_for_notice(size: int, rate: float = LEAST_RATE) -> float:
    """Return how long a process should be given to put ``size`` bytes of state away at a rate in
    bytes a second: the checkpoint's own time, and a margin."""
    return MARGIN * size / rate


def notice_needs_in_words(size: int) -> list[str]:
    """Return a line that says from which rate on the shortest notice suffices for the largest
    checkpoint of a sweep, of ``size`` bytes, before one is measured; none where every disk is fast
    enough."""
    if seconds_for_notice(size) <= SPOT_NOTICE_SECONDS:
        return []
    return [
        f"{size / GIB:.1f} GiB of the largest: {SPOT_NOTICE_SECONDS:.0f} s of notice suffice from"
        f" {size / SPOT_NOTICE_SECONDS / 1e6:.0f} MB/s on"
    ]


def notice_in_words(size: int, rate: float, share: float, given: float) -> str:
    """Return what a notice of ``given`` seconds leaves time for a checkpoint of ``size`` bytes, at
    a measured rate in bytes/s."""
    seconds = size / rate
    taken = f"a checkpoint of {size / GIB:.1f} GiB takes {seconds:.0f} s at {rate / 1e6:.0f} MB/s"
    if seconds <= given:
        return f"{taken}: a notice of {given:.0f} s suffices, and no step is lost"
    if share == 0.0:
        return f"{taken}: a notice of {given:.0f} s does not suffice, and there is no other one"
    apart = f"{seconds / share / 60:.0f} min" if share < 1.0 else "a part"
    return (
        f"{taken}: a notice of {given:.0f} s does not suffice, and the steps since the last one are"
        f" lost, {apart} of them at most"
    )
