"""MLflow: a run of an experiment for each run, found again by a tag.

MLflow gives its own run ids, so a run is looked up by the tag ``depthsweep.key``, which is set in
the request that creates it. What it has of each metric is asked when it is opened. A request that
the server carried out after the client gave it up is sent again with the same times: the same rows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from orchestrator.tracking.tracker import Outcome, RunCard, StepRow
from sweeps.store.records import COMPLETE

KEY = "depthsweep.key"
STATUS = "depthsweep.status"
SWEEP = "sweep"
FINAL = "final."
# Of one request, as the server takes them; a value longer than that is cut.
METRICS, PARAMETERS, VALUE = 1000, 100, 6000
PAGE = 1000
# What an exact status is in MLflow's own words, which know no other end.
WORDS = {**dict.fromkeys(COMPLETE, "FINISHED"), "diverged": "FAILED", "failed": "FAILED"}
# The client waits for minutes by itself, ours asks again later; and it prints where a run is, among
# what `run --json` prints. A user's own wish stands.
WISHES = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MlflowRuns:
    """One experiment of a tracking server."""

    kind = "mlflow"

    def __init__(self, uri: str, experiment: str, tags: dict[str, str], sweep: str) -> None:
        for name, value in WISHES.items():
            os.environ.setdefault(name, value)
        self._uri, self._name, self._tags, self._sweep = uri, experiment, tags, sweep
        self._id: str | None = None

    def ended(self) -> dict[str, str]:
        """Return the runs whose status was said, by their tags."""
        tags = [run.data.tags for run in self._search(f"tags.`{SWEEP}` = '{self._sweep}'")]
        return {tag[KEY]: tag[STATUS] for tag in tags if KEY in tag and STATUS in tag}

    def open(self, card: RunCard) -> MlflowRun:
        """Return the run with this key; of several, which a lost answer can make, the first."""
        found = self._search(f"tags.`{KEY}` = '{card.key}'")
        for late in found[1:]:
            self._client.delete_run(late.info.run_id)
        run = found[0] if found else self._create(card)
        return MlflowRun(self._client, run, card)

    def close(self) -> None:
        """Nothing is held between requests."""

    def _create(self, card: RunCard) -> Any:
        tags = {
            **self._tags,
            KEY: card.key,
            SWEEP: card.sweep,
            "run_id": card.run_id,
            **card.heads,
            **({"mlflow.note.content": card.description} if card.description else {}),
        }
        experiment = self._experiment()
        return self._client.create_run(experiment, tags=tags, run_name=card.name)

    @cached_property
    def _client(self) -> MlflowClient:
        """Made in the tracker's own thread: a wrong URI is said there, as a server that is away."""
        return MlflowClient(tracking_uri=self._uri)

    def _search(self, wanted: str) -> list[Any]:
        experiment, token = self._experiment(), None
        found: list[Any] = []
        while True:
            page = self._client.search_runs(
                [experiment],
                wanted,
                max_results=PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                return found

    def _experiment(self) -> str:
        if self._id is None:
            known = self._client.get_experiment_by_name(self._name)
            self._id = str(
                known.experiment_id if known else self._client.create_experiment(self._name)
            )
        return self._id


class MlflowRun:
    """One run of an experiment, open for more."""

    def __init__(self, client: MlflowClient, run: Any, card: RunCard) -> None:
        self._client = client
        self._id = run.info.run_id
        self._has = {
            name: max(one.step for one in client.get_metric_history(self._id, name))
            for name in run.data.metrics
        }
        self._say_parameters(run, card)
        if run.info.status != "RUNNING":
            client.update_run(self._id, status="RUNNING")
        if STATUS in run.data.tags:
            client.delete_tag(self._id, STATUS)

    @property
    def logged_to(self) -> int:
        """The last step that all metrics by step have: rows may be torn where files are kept."""
        steps = [step for name, step in self._has.items() if not name.startswith(FINAL)]
        return min(steps, default=0)

    def log(self, rows: Sequence[StepRow]) -> None:
        """Add what each metric lacks, in as few requests as there can be."""
        metrics = [
            Metric(name, value, int(row.time.timestamp() * 1000), row.step)
            for row in rows
            for name, value in row.numbers.items()
            if row.step > self._has.get(name, 0)
        ]
        self._send(metrics)

    def end(self, outcome: Outcome) -> None:
        """Say numbers, status and profiles; the tag that says that all was said comes last."""
        time = int(outcome.time.timestamp() * 1000)
        self._send(
            [
                Metric(f"{FINAL}{name}", value, time, outcome.step)
                for name, value in outcome.numbers.items()
                if self._has.get(f"{FINAL}{name}", -1) < outcome.step
            ]
        )
        self._client.set_terminated(self._id, WORDS.get(outcome.status, "KILLED"))
        if outcome.profiles is not None:
            self._client.log_text(self._id, outcome.profiles.write_csv(), "profiles.csv")
            self._client.log_text(self._id, outcome.picture("svg").decode(), "profile.svg")
        self._client.set_tag(self._id, STATUS, outcome.status)

    def leave(self) -> None:
        """Nothing is held between requests."""

    def _send(self, metrics: list[Metric]) -> None:
        for start in range(0, len(metrics), METRICS):
            some = metrics[start : start + METRICS]
            self._client.log_batch(self._id, metrics=some)
            self._has |= {one.key: one.step for one in some}

    def _say_parameters(self, run: Any, card: RunCard) -> None:
        missing = [
            Param(name, str(value)[:VALUE])
            for name, value in card.parameters.items()
            if name not in run.data.params
        ]
        for start in range(0, len(missing), PARAMETERS):
            self._client.log_batch(self._id, params=missing[start : start + PARAMETERS])
