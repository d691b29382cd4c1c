"""A profile, and for some kinds a sweep, to the text of the file that its tool takes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import yaml

from cluster import autoscaler
from cluster.job import Job
from cluster.kuberay import rayjob
from cluster.profile import Aws, Gcp, Kuberay, Local, Profile, Slurm, Static
from cluster.slurm import batch_script

# What stands in a file that was rendered without a sweep: to read, not to apply.
EXAMPLE = Job(
    submission_id="depthsweep-paper-example-1",
    sweep="paper",
    version="",
    sweep_file="/shared/paper.yaml",
    sweep_text="# your sweep file: give it with --sweep FILE\n",
    store="s3://BUCKET/depthsweep",
)


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, so that a person can read it."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def render(profile: Profile, job: Job | None = None) -> str:
    """Return the file for a profile's tool; its first lines say how it is applied.

    ``job`` matters to the kinds that make a cluster for one sweep (kuberay, slurm); without it
    their file shows placeholders.
    """
    shown = job or EXAMPLE
    if isinstance(profile, Slurm):
        return batch_script(profile, shown, _comment(*_usage(profile, job)))
    documents: list[dict[str, Any]]
    if isinstance(profile, Kuberay):
        documents = rayjob(profile, shown, version("ray"))
    elif isinstance(profile, Local):
        documents = [{"commands": local_commands(profile)}]
    else:
        documents = [_autoscaler(profile)]
    body = yaml.dump_all(
        documents,
        Dumper=_Dumper,
        sort_keys=False,
        width=10_000,
        explicit_start=len(documents) > 1,
        allow_unicode=True,
    )
    return _comment(*_usage(profile, job)) + body


def _autoscaler(profile: Aws | Gcp | Static) -> dict[str, Any]:
    if isinstance(profile, Aws):
        return autoscaler.aws(profile)
    return autoscaler.gcp(profile) if isinstance(profile, Gcp) else autoscaler.static(profile)


def local_commands(profile: Local, cpus: int | None = None) -> list[str]:
    """Return the commands that start a cluster on this machine; ``depthsweep cluster up`` does."""
    cpus = profile.cpus_per_node or cpus
    size = f" --num-cpus={cpus}" if cpus else ""
    shared = f" --node-ip-address=127.0.0.1{size} --disable-usage-stats --block"
    head = f"ray start --head --port={profile.port} --dashboard-host=127.0.0.1"
    head += f" --dashboard-port={profile.dashboard_port} --num-gpus={profile.gpus}{shared}"
    worker = f"ray start --address=127.0.0.1:{profile.port} --num-gpus=0{shared}"
    return [head, *[worker] * (profile.nodes - 1)]


def _comment(*lines: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _usage(profile: Profile, job: Job | None) -> list[str]:
    lines = [f"Rendered by depthsweep from a {profile.kind} profile."]
    if isinstance(profile, Kuberay):
        space = f"--namespace {profile.namespace}"
        lines += [
            f"apply:  kubectl apply -f FILE {space}",
            f"token:  kubectl create secret generic {profile.token_secret} {space}"
            " --from-file=auth_token=PATH",
        ]
        for secret in profile.secrets:
            lines.append(
                f"secret: kubectl create secret generic {secret} {space} --from-env-file=PATH"
            )
    elif isinstance(profile, Slurm):
        lines += ["apply:  sbatch FILE", "again:  the same; finished runs are skipped"]
    elif isinstance(profile, Local):
        lines += ["apply:  depthsweep cluster up local", "end:    depthsweep cluster down local"]
    else:
        lines += ["apply:  ray up FILE", "end:    ray down FILE"]
        if not isinstance(profile, Static):
            lines.append(f"reach:  ray dashboard FILE (forwards {profile.address})")
        elif profile.reach == "tunnel":
            lines.append(f"reach:  {profile.tunnel} (forwards {profile.address})")
        lines.append(f"token:  {profile.token_file}, made by: ray get-auth-token --generate")
    if job is None and isinstance(profile, (Kuberay, Slurm)):
        lines.append("Sweep and store are placeholders: give --sweep FILE and --store URL.")
    return lines
