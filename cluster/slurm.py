"""A batch script for Slurm: one allocation, one Ray cluster, one sweep.

Requeued after a preemption or a node failure, the same script goes on with what is left.
"""

from __future__ import annotations

import shlex

from cluster.job import Job
from cluster.profile import Slurm


def batch_script(profile: Slurm, job: Job, comment: str) -> str:
    """Return the script for `sbatch`; ``comment`` stands below its first line."""
    options = [
        f"--job-name={job.submission_id}",
        f"--nodes={profile.nodes}",
        "--ntasks-per-node=1",
        "--exclusive",
        f"--cpus-per-task={profile.cpus_per_node}",
        f"--time={profile.time}",
        "--requeue",
        "--open-mode=append",
        f"--output={job.submission_id}.out",
    ]
    if profile.gpus_per_node:
        options.append(f"--gpus-per-node={profile.gpus_per_node}")
    for name in ("partition", "account", "qos"):
        if getattr(profile, name):
            options.append(f"--{name}={getattr(profile, name)}")
    start = ["--num-cpus", str(profile.cpus_per_node), "--num-gpus", str(profile.gpus_per_node)]
    lines = [
        "#!/bin/bash",
        comment.rstrip(),
        *(f"#SBATCH {option}" for option in options),
        "",
        "set -euo pipefail",
        *(f"module load {module}" for module in profile.modules),
        f"source {_path(profile.venv)}/bin/activate",
        *(f"export {name}={shlex.quote(value)}" for name, value in profile.env.items()),
        "export RAY_AUTH_MODE=token",
        f"export RAY_AUTH_TOKEN_PATH={_path(profile.token_file)}",
        # Of this job alone: a node may have had another Ray before.
        'export RAY_TMPDIR="/tmp/ray-$SLURM_JOB_ID"',
        "",
        'nodes="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"',
        "head=\"${nodes%%$'\\n'*}\"",
        'address="$head:$((20000 + SLURM_JOB_ID % 20000))"',
        "# The command runs on the head, once; every other node joins it, and leaves when it ends.",
        'srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --wait=60 \\',
        '  ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \\',
        f"  {shlex.join(start)} -- \\",
        f"  {job.shell()}",
        "",
    ]
    return "\n".join(lines)


def _path(path: str) -> str:
    """Return a path for the shell; ``~`` is the home of whoever runs the job."""
    if path.startswith("~/"):
        return f'"$HOME/{path[2:]}"'
    return shlex.quote(path)
