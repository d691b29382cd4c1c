"""A batch script for Slurm: one allocation, one Ray cluster, one sweep.

`srun` starts `orchestrator.jobs.slurm_node` on every node. Told that the allocation ends (by a
preemption, or before the time limit), runs checkpoint and the script has Slurm put the job into the
line again, where it goes on with what is left. USR2 to the script is `depthsweep cancel`: runs
checkpoint, and the job ends.
"""

from __future__ import annotations

import shlex

from cluster.job import Job
from cluster.profile import Slurm
from sweeps.errors import UserError

# Slurm looks at time limits now and then: it may say so that much earlier.
SLURM_LATE_SECONDS = 60
_TOLD = """\
# Slurm tells the nodes when the allocation ends; this script only has to outlast them.
trap : TERM
cancelled=
trap 'cancelled=1; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR2
"""
_AFTERWARDS = """\
step=$!
code=0
wait "$step" || code=$?
while kill -0 "$step" 2>/dev/null; do code=0; wait "$step" || code=$?; done
# 143: a notice came before the sweep was done. Where Slurm itself ends or requeues the job, it is
# no longer running by now.
if [[ $code == 143 && -z $cancelled ]]; then
  if [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
    echo "depthsweep: job $SLURM_JOB_ID goes back into the line"
    trap - TERM
    scontrol requeue "$SLURM_JOB_ID" && sleep 600
  fi
fi
echo "depthsweep: job $SLURM_JOB_ID ended with exit code $code${cancelled:+, cancelled}"
if [[ -n $cancelled ]]; then trap - TERM; scancel "$SLURM_JOB_ID"; sleep 600; fi
exit "$code"
"""


def notice_seconds(profile: Slurm, job: Job) -> int:
    """Return how long before its time limit a job is told; raise UserError where it is told at
    once."""
    seconds = profile.notice_seconds or job.notice_seconds
    if seconds + SLURM_LATE_SECONDS >= profile.seconds:
        raise UserError(
            f"time: {profile.time} leaves nothing beside the {seconds} s that runs need to"
            " checkpoint before it is up; ask for more time, or set notice_seconds"
        )
    return seconds


def batch_script(profile: Slurm, job: Job, comment: str) -> str:
    """Return the script for `sbatch`; ``comment`` stands below its first line. Raises UserError
    as ``notice_seconds``."""
    notice = notice_seconds(profile, job)
    options = [
        f"--job-name={job.submission_id}",
        f"--comment={job.version}",
        f"--nodes={profile.nodes}",
        "--ntasks-per-node=1",
        "--exclusive",
        f"--cpus-per-task={profile.cpus_per_node}",
        f"--time={profile.time}",
        f"--signal=TERM@{notice}",
        "--requeue",
        "--open-mode=append",
        f"--output={job.submission_id}.out",
    ]
    if profile.gpus_per_node:
        options.append(f"--gpus-per-node={profile.gpus_per_node}")
    for name in ("partition", "account", "qos"):
        if getattr(profile, name):
            options.append(f"--{name}={getattr(profile, name)}")
    size = f"--nodes {profile.nodes} --cpus {profile.cpus_per_node} --gpus {profile.gpus_per_node}"
    lines = [
        "#!/bin/bash",
        comment.rstrip(),
        *(f"#SBATCH {option}" for option in options),
        "",
        "set -uo pipefail",
        *(f"module load {module} || exit 1" for module in profile.modules),
        f"source {_path(profile.venv)}/bin/activate || exit 1",
        *(f"export {name}={shlex.quote(value)}" for name, value in profile.env.items()),
        "export RAY_AUTH_MODE=token",
        f"export RAY_AUTH_TOKEN_PATH={_path(profile.token_file)}",
        "",
        _TOLD,
        # Each node ends by itself, in its time; a site may have other defaults.
        f"srun --nodes={profile.nodes} --ntasks={profile.nodes} --wait=0 --kill-on-bad-exit=0 \\",
        f"  python -m orchestrator.jobs.slurm_node {size} --notice {notice} -- \\",
        f"  {job.shell()} &",
        _AFTERWARDS,
    ]
    return "\n".join(lines)


def _path(path: str) -> str:
    """Return a path for the shell; ``~`` is the home of whoever runs the job."""
    if path.startswith("~/"):
        return f'"$HOME/{path[2:]}"'
    return shlex.quote(path)
