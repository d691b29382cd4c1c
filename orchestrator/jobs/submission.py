"""From a sweep, a store and a cluster's profile to a job, and back to it by the sweep's name."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.job import Job
from cluster.library import profile_path, read_profile
from cluster.profile import Aws, Gcp, JobsApi, Kuberay, Local, Profile, Slurm, Static, in_clear
from orchestrator.jobs.job_identity import (
    JobState,
    Queue,
    Submission,
    attempts,
    job_name,
    submission,
    version_of,
)
from orchestrator.sizing.choice import require_feasible
from orchestrator.sizing.cost import notice_seconds
from orchestrator.sizing.tracer import tracing
from sweeps.declaration.expand import Sweep, SweepFile
from sweeps.errors import UserError
from sweeps.store.store import Store
from sweeps.store.sweep_records import job_records, record_job
from sweeps.versions.version_id import SweepName

if TYPE_CHECKING:
    from orchestrator.jobs.ray_jobs import JobsApiClient

# How long a submit watches a job's beginning for a mistake that only the cluster can see.
WATCH_SECONDS = 90.0
POLL_SECONDS = 0.5
# What the driver says once nodes, code and store are found good.
READY = " to run, "
NOTHING_LEFT = "nothing to do"
# Ray's Jobs API ends a driver with SIGINT, like a person's Ctrl-C, and gives it this long.
STOPPING = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}


@dataclass(frozen=True)
class Request:
    """What is to run where: a sweep with the command of its driver, a store, a cluster.

    ``file`` is what goes along, where it is not the store's own record that is gone on with;
    ``options`` are further arguments of the driver, whatever kind of cluster starts it.
    """

    sweep: Sweep
    file: SweepFile | None
    command: list[str]
    store: str
    profile_name: str
    profile: Profile
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return job_name(self.sweep.name, self.store)


def absolute_store(location: str) -> str:
    """Return a store's location as every node would be told: a URL, or an absolute path."""
    if "://" in location:
        return location.rstrip("/")
    return str(Path(location).expanduser().absolute())


def job_of(
    file: Path, sweep: Sweep, store: str, attempt: int = 1, options: tuple[str, ...] = ()
) -> Job:
    """Return what a rendered file says of the sweep that a file is of."""
    place = absolute_store(store)
    name = f"{job_name(sweep.name, place)}-{attempt}"
    path = str(file.absolute())
    notice = notice_seconds(sweep.runs)
    return Job(name, sweep.name, version_of(sweep), path, sweep.text, place, options, notice)


def stored_profile_name(name: str) -> str:
    """Return a profile's name as a record keeps it: found again from any folder."""
    return str(profile_path(name).absolute()) if "/" in name or "." in name else name


def queue_of(profile: Profile, records: Mapping[int, dict[str, Any]]) -> Queue:
    """Return where jobs of a profile are; raise UserError where that does not answer.

    ``records`` are a store's of the jobs of a sweep by attempt: not every queue remembers a job
    that has ended.
    """
    if isinstance(profile, Kuberay):
        from orchestrator.jobs.kubernetes_jobs import KubernetesJobs

        return KubernetesJobs(profile)
    if isinstance(profile, Slurm):
        from orchestrator.jobs.slurm_jobs import SlurmJobs

        return SlurmJobs(profile, {str(one["submission_id"]): one for one in records.values()})
    return jobs_api(profile)


def jobs_api(profile: Local | Static | Aws | Gcp) -> JobsApiClient:
    """Return the Jobs API of a profile's cluster; raise UserError where it does not answer."""
    from orchestrator.jobs.local_cluster import LocalCluster
    from orchestrator.jobs.ray_jobs import JobsApiClient, NoCluster

    if isinstance(profile, Local):
        cluster = LocalCluster(profile)
        if not cluster.processes():
            raise UserError(
                f"no local cluster is up on port {profile.port}; start it: depthsweep cluster up,"
                " with its profile where that is a file of yours"
            )
        return JobsApiClient.connect(profile.address, cluster.token_path)
    try:
        return JobsApiClient.connect(profile.address, Path(profile.token_file).expanduser())
    except NoCluster as error:
        steps = "correct the address in the cluster profile, or start it: save what `depthsweep"
        steps += " cluster render` prints for the profile as cluster.yaml, `ray up cluster.yaml`"
        if not isinstance(profile, Static):
            steps += ", and leave `ray dashboard cluster.yaml` open"
        elif profile.reach == "tunnel" and profile.jobs_address is None:
            steps += f", and leave `{profile.tunnel}` open"
        raise UserError(f"{error}; {steps}") from None


def submit(request: Request, say: Callable[[str], None]) -> Submission:
    """Give a sweep to its cluster, or find it there; return which job that is.

    Raises UserError where the code of a model refuses a run, which is asked here and now, and with
    the cluster's own word where it refuses the sweep in its first moments.
    """
    with tracing(say):
        require_feasible(request.sweep.runs)
    profile = request.profile
    if isinstance(profile, JobsApi) and in_clear(profile.address):
        say(
            f"warning: {profile.address} is reached without encryption: whoever reads along has the"
            " token, and may run code there; prefer a tunnel (reach: tunnel) or https"
        )
    version = version_of(request.sweep)
    store = _visible(request)
    records = job_records(store, request.sweep.name) if store else {}
    queue = queue_of(request.profile, records)
    chosen = submission(queue.jobs(), request.name, version, max(records, default=0))
    kept: dict[str, str] = {}
    if not chosen.attaches:
        chosen, kept = _start(request, queue, chosen, version, say)
    if store is not None and chosen.attempt not in records:
        _record(store, request, chosen, version, kept)
    return chosen


def _start(
    request: Request, queue: Queue, chosen: Submission, version: str, say: Callable[[str], None]
) -> tuple[Submission, dict[str, str]]:
    """Return the job, and what a record keeps of it beside what every one does."""
    from orchestrator.jobs.kubernetes_jobs import KubernetesJobs
    from orchestrator.jobs.ray_jobs import JobsApiClient
    from orchestrator.jobs.slurm_jobs import SlurmJobs
    from orchestrator.jobs.working_directory import (
        local_files,
        local_plugins,
        working_directory,
    )

    if isinstance(queue, (KubernetesJobs, SlurmJobs)):
        file = request.file
        if file is None:
            raise UserError(
                f"a {request.profile.kind} cluster is made for a sweep file: submit the file again,"
                " which goes on with what is left"
            )
        if isinstance(queue, KubernetesJobs) and (local_files(file) or local_plugins(file)):
            raise UserError(
                f"{file.path}: local files do not go along to Kubernetes; put models, data"
                " and plugins into the image or on a volume, and give absolute paths"
            )
        place, options = request.store, request.options
        job = job_of(file.path, request.sweep, place, chosen.attempt, options)
        return chosen, queue.start(job, say)
    assert isinstance(queue, JobsApiClient)
    assert isinstance(request.profile, JobsApi)
    uploads = request.profile.code == "upload"
    program = ["python", "-m", "orchestrator"] if uploads else ["depthsweep"]
    command = [*program, *request.command, *request.options]
    command += ["--address", "auto", "--store", request.store]
    with working_directory(request.file, uploads) as folder:
        taken = queue.submit(
            chosen.submission_id,
            "exec " + shlex.join(command),
            folder,
            {**STOPPING, **request.profile.env},
            {"sweep": request.sweep.name, "version": version},
        )
    if not taken:  # another submit was faster by a moment
        return Submission(chosen.submission_id, chosen.attempt, True), {}
    say(f"submitted {chosen.submission_id}; the cluster looks at code, versions and store")
    _watch(queue, chosen.submission_id)
    return chosen, {}


def _watch(queue: Queue, submission_id: str) -> None:
    """Return once a job's driver has begun, or is only waiting; raise UserError as it refused."""
    until = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < until:
        state = next((job for job in queue.jobs() if job.submission_id == submission_id), None)
        said = queue.log(submission_id)
        if READY in said or NOTHING_LEFT in said:
            return
        if state is not None and state.ended_state:
            if state.state == "succeeded":
                return
            raise UserError(refusal(said, state))
        time.sleep(POLL_SECONDS)


def refusal(said: str, state: JobState) -> str:
    """Return the line in which a driver said why it ended; the cluster's own where it said none."""
    own = [line for line in said.splitlines() if line.startswith("depthsweep: ")]
    if own:
        return own[-1].removeprefix("depthsweep: ")
    last = said.strip().splitlines()[-1:] or [state.message]
    return f"{state.submission_id} ended before its first run ({state.state}): {last[0][-300:]}"


# --------------------------------------------------------------------------- jobs by a sweep's name
def _record(
    store: Store, request: Request, chosen: Submission, version: str, kept: dict[str, str]
) -> None:
    record = {
        "submission_id": chosen.submission_id,
        "cluster": stored_profile_name(request.profile_name),
        "version": version,
        "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
        **kept,
    }
    record_job(store, request.sweep.name, chosen.attempt, record)


def _visible(request: Request) -> Store | None:
    """Return the store where it can be seen from here; a cluster's path may not be. What Slurm is
    given lies on a file system that this machine sees, too: there a first job makes the folder."""
    place, profile = request.store, request.profile
    folder = Path(place).parent if isinstance(profile, Slurm) else Path(place)
    if "://" in place or isinstance(profile, Local) or folder.is_dir():
        return Store.at(place)
    return None


@dataclass(frozen=True)
class Found:
    """The newest job of a sweep, and the queue that knows it."""

    queue: Queue
    job: JobState
    profile_name: str


def require_sweep(sweep: str, store: str) -> None:
    """Raise UserError where a store is not there, or has not run a sweep: what was mistyped is that
    name, and no job is missed. A store that is seen from its cluster alone has that named."""
    place = Store.at(store)
    try:
        place.require_there(f"--store {store}")
    except UserError as error:
        raise UserError(f"{error}, or with --cluster the one that sees it") from None
    place.version(sweep)


def find(sweep: str, store: str, profile_name: str | None) -> Found:
    """Return the newest job of a sweep in a store.

    The cluster is the one given, or the one of the newest record. Raises UserError where there is
    no such job, no such sweep or store, or its cluster does not answer.
    """
    place = absolute_store(store)
    records = job_records(Store.at(place), sweep)
    if profile_name is None:
        if not records:
            require_sweep(sweep, store)
            raise UserError(
                f"the store {store} knows of no job of {sweep!r}: if it ran here, ask for one of"
                " its runs by id (`status --json` has them); else name its cluster with --cluster"
            )
        profile_name = str(records[max(records)]["cluster"])
    queue = queue_of(read_profile(profile_name), records)
    known = attempts(queue.jobs(), job_name(SweepName.parse(sweep).name, place))
    if not known:
        raise UserError(f"the cluster {profile_name} knows of no job of {sweep!r} in {place}")
    return Found(queue, known[max(known)], profile_name)
