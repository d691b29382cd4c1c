"""A sweep that never failed against the same sweep under hundreds of faults, byte for byte.

    python -m tests.faults --seed 1 --faults 500
    python -m tests.faults --seed 1 --faults 100 --store s3
    python -m tests.faults --seed 1 --faults 100 --store network

Most faults befall forked workers, which start in a tenth of a second; one in ten befalls the real
command, its Ray and its workers; with ``--store s3`` (moto's server) or ``--store seaweedfs`` all
befall workers and what they ask of a server, with ``--store network`` workers on hosts that are cut
off, deaf, mute or lossy, and a server that is slow or whose connections are reset (as root, in
namespaces of the kernel). Every kind is drawn as often as another, from the seed; when exactly a
fault strikes depends on the machine, too. Exits with 1 when any row is lost, doubled or different,
a run is not finished, doctor finds anything after faults that need no mending, or a person would
have to clean up; the folder is then kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sweeps.liveness.watch import STALE_VARIABLE
from tests.faults import forked, schedule
from tests.faults.campaign import Campaign
from tests.faults.grounds import a_bucket, a_bucket_of_seaweedfs, a_network
from tests.faults.sabotage import SABOTAGE
from tests.servers.hosts import missing
from tests.servers.object_servers import SeaweedFS

# On a server of this kind a heartbeat is a request of some hundredths of a second.
STALE_SECONDS = {"folder": 1.0, "s3": 3.0, "seaweedfs": 3.0, "network": 4.0}


def main() -> int:
    arguments = _arguments()
    os.environ.setdefault(STALE_VARIABLE, str(STALE_SECONDS[arguments.store]))
    began = time.monotonic()
    # Sockets of Ray lie below it, and their paths must be short.
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="faults-"))

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {line}", file=sys.stderr, flush=True)

    say(f"seed {arguments.seed}, {arguments.faults} faults, in {folder}")
    forked.warm_up()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the disk is unmounted then, too
    of_workers, of_command = schedule.schedule(
        arguments.seed, arguments.faults, arguments.only, tuple(arguments.kinds), arguments.store
    )
    with ExitStack() as stack:
        places = {"s3": a_bucket, "seaweedfs": a_bucket_of_seaweedfs, "network": a_network}
        place = places.get(arguments.store)
        bucket = stack.enter_context(place()) if place is not None else None
        campaign = Campaign(folder, say, bucket)
        stack.callback(campaign.close)
        if not campaign.disk.mounted:
            say("no tmpfs may be mounted here: writes fail by RLIMIT_FSIZE instead of a full disk")
        campaign.unbroken()
        say("the unbroken sweep is done")
        campaign.on_workers(of_workers, SABOTAGE.get(arguments.broken))
        campaign.on_command(of_command)
    seconds = time.monotonic() - began
    summary = {"seed": arguments.seed, "store": arguments.store, **campaign.summary()}
    faults = sum(counter.total() for counter in campaign.applied.values())
    summary |= {
        "faults": faults,
        "seconds": round(seconds, 1),
        "seconds_a_fault": round(seconds / max(1, faults), 2),
    }
    if campaign.sound:
        shutil.rmtree(folder)
    else:
        summary["folder"] = str(folder)
    if arguments.json:
        print(json.dumps(summary, indent=1))
    else:
        print("\n".join(_text(summary)))
    return 0 if campaign.sound else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=25)
    parser.add_argument("--store", choices=schedule.KINDS, default="folder")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--only", choices=("workers", "command"), help="only faults of one sort")
    kinds = sorted({kind for kinds in schedule.KINDS.values() for kind in kinds})
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=())
    parser.add_argument("--broken", choices=SABOTAGE, help="break the protocol: it must be found")
    arguments = parser.parse_args()
    wrong = set(arguments.kinds) - set(schedule.KINDS[arguments.store])
    if wrong:
        parser.error(f"--store {arguments.store}: no such faults there: {', '.join(sorted(wrong))}")
    if arguments.store != "folder" and arguments.only == "command":
        parser.error(f"--store {arguments.store}: faults befall workers alone there")
    needs = {"network": missing, "seaweedfs": SeaweedFS.missing}.get(arguments.store)
    if needs is not None and (why := needs()) is not None:
        parser.error(f"--store {arguments.store}: {why}")
    return arguments


def _text(summary: dict[str, Any]) -> list[str]:
    lines = [
        f"seed {summary['seed']}: {summary['faults']} faults over {summary['stores']} stores in"
        f" {summary['seconds']:.0f} s, {summary['seconds_a_fault']} s a fault",
        f"  {summary['rows_compared']} rows compared: {summary['rows_lost']} lost,"
        f" {summary['rows_duplicated']} duplicated, {summary['tables_different']} tables different",
        f"  {summary['runs_not_finished']} runs not finished, {summary['commands_hung']} commands"
        f" hung, {summary['findings']} findings where none should be"
        f" ({summary['mended_by_doctor']} mended after harm to files, {summary['came_late']} files"
        " that came when nobody asked for them)",
        *(f"  wrong: {one}" for one in summary["wrong"]),
    ]
    for where in ("workers", "command"):
        kinds = summary[f"faults_of_{where}"]
        lines.append(f"  {where}: " + ", ".join(f"{kind} {n}" for kind, n in kinds.items()))
    if "folder" in summary:
        lines.append(f"  kept: {summary['folder']}; again with --seed {summary['seed']}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
