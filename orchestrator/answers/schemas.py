"""The JSON Schema of what each command prints with ``--json``; ``depthsweep schema COMMAND``."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from orchestrator.answers import of_findings, of_runs, of_stores
from sweeps.errors import UserError, closest

# What a command prints, whatever else it was asked; of ``logs``, each line.
ANSWERS: dict[str, Any] = {
    "plan": of_runs.Plan | list[of_runs.Action],
    "power": of_findings.Power,
    "run": of_runs.Summary | list[of_runs.Action],
    "resume": of_runs.Summary | list[of_runs.Action] | of_runs.Submitted,
    "submit": of_runs.Submitted,
    "status": of_runs.Status,
    "ls": of_stores.ListedStore | of_stores.ListedRuns | of_stores.ListedRunsOfAll,
    "profile": of_findings.Profile,
    "compare": of_findings.Comparison,
    "diff": of_findings.Difference,
    "claims": of_findings.Claims,
    "distance": of_runs.Summary,
    "digest": list[of_findings.TableDigest],
    "query": list[of_findings.AnswerRow],
    "logs": of_runs.Event,
    "gc": of_stores.Collected,
    "pull": of_stores.Pulled,
    "merge": list[of_stores.Pulled],
    "doctor": of_stores.Checked | of_stores.Migrated,
    "cluster list": list[of_stores.ClusterProfile],
}


def schema_of(command: str) -> dict[str, Any]:
    """Return the JSON Schema of what a command prints; raise UserError for one that has none."""
    if command not in ANSWERS:
        raise UserError(f"{command}: prints no JSON; {closest(command, list(ANSWERS))}")
    schema = TypeAdapter(ANSWERS[command]).json_schema(mode="serialization")
    said = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**said, **schema, "title": f"depthsweep {command} --json"}
