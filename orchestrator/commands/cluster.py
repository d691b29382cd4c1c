"""``depthsweep cluster``: profiles of clusters, the files they stand for, and a cluster here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps.errors import UserError

if TYPE_CHECKING:
    from orchestrator.jobs.local_cluster import LocalCluster


@click.group("cluster")
def command() -> None:
    """List profiles, render the file of one, start a cluster on this machine."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array for programs.")
def list_profiles(as_json: bool) -> None:
    """List the profiles that come with depthsweep."""
    from cluster.library import profile_names, profile_path

    found = []
    for name in profile_names():
        path = profile_path(name)
        first = path.read_text(encoding="utf-8").splitlines()[0]
        what = first.removeprefix("# ").split(". ")[0].rstrip(".")
        found.append({"name": name, "what": what, "file": str(path)})
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for one in found:
        click.echo(f"{one['name']:<8} {one['what']}")
    click.echo(f"\nfiles: {Path(found[0]['file']).parent} (copy one and edit it)")


@command.command("render")
@click.argument("profile_name", metavar="PROFILE")
@click.option("--sweep", "sweep_file", help="Sweep file, for a cluster made for one sweep.")
@click.option("--store", help="Where its results go, as the cluster's nodes see it.")
def render_profile(profile_name: str, sweep_file: str | None, store: str | None) -> None:
    """Print the file that would be applied: PROFILE is a name, or a .yaml file of yours."""
    from cluster.library import read_profile
    from cluster.render import render
    from orchestrator.jobs.submission import job_of
    from sweeps.declaration.expand import SweepFile

    profile = read_profile(profile_name)
    if (sweep_file is None) != (store is None):
        raise UserError("--sweep and --store belong together: give both or neither")
    job = None
    if sweep_file and store:
        file = SweepFile.read(sweep_file)
        job = job_of(file.path, file.sweep(), store)
    click.echo(render(profile, job), nl=False)


@command.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of a cluster profile."""
    from cluster.profile import schema

    click.echo(json.dumps(schema(), indent=1))


@command.command("up")
@click.argument("profile_name", metavar="PROFILE", default="local")
def up(profile_name: str) -> None:
    """Start the local cluster of PROFILE on this machine."""
    cluster = _local(profile_name)
    cluster.up()
    profile = cluster.profile
    click.echo(f"{profile.nodes} Ray nodes on this machine; Jobs API at {profile.address}")
    click.echo(f"submit to it: depthsweep submit SWEEP --cluster {profile_name} --store FOLDER")


@command.command("down")
@click.argument("profile_name", metavar="PROFILE", default="local")
def down(profile_name: str) -> None:
    """End the local cluster of PROFILE."""
    ended = _local(profile_name).down()
    click.echo(f"{ended} Ray nodes ended" if ended else "no local cluster is up")


def _local(profile_name: str) -> LocalCluster:
    from cluster.library import profile_path, read_profile
    from cluster.profile import Local
    from orchestrator.jobs.local_cluster import LocalCluster
    from orchestrator.jobs.ray_jobs import require_packages

    require_packages("psutil", "aiohttp_cors")  # the second is the dashboard's, and its Jobs API
    profile = read_profile(profile_name)
    if not isinstance(profile, Local):
        path = Path(profile_path(profile_name))
        raise UserError(
            f"{path}: a {profile.kind} cluster is started by its own tool:"
            f" depthsweep cluster render {profile_name} > FILE says how in its first lines"
        )
    return LocalCluster(profile)
