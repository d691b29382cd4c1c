"""Small JSON records as a crash or a failing disk may have left them.

What cannot be read says nothing: a closing record is then no result, an attempt's is that of one
that was lost. Only the file's name and time are left to go by, and the next attempt goes on.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sweeps.files.whole_files import Place, read_if_readable
from sweeps.index import segments

Status = Literal["finished", "stopped", "diverged", "failed"]
# A run whose training ended as it was to: after its last step, or once its ``stop`` said so.
COMPLETE = ("finished", "stopped")
# How runs end whose rows count.
RESULTS = (*COMPLETE, "diverged")

# How a run stands that has no result, by what its newest attempt says.
Unended = Literal["failed", "cancelled", "preempted", "lost"]

SEAL = "sha256"

# What an attempt was made with, each a text or unknown: the code, what it runs on, and where. They
# are columns of ``attempts``, too. What ends in _version is the version of what is named so.
PROVENANCE = (
    *("depthsweep_version", "git_commit", "code_digest"),
    *("python_version", "torch_version", "deepspeed_version", "transformers_version"),
    *("datasets_version", "tokenizers_version", "numpy_version", "pyarrow_version"),
    *("ray_version", "peft_version", "cuda_version", "driver_version", "device", "hardware"),
)
VERSION = "_version"

_ATTEMPT: dict[str, tuple[type, ...]] = {
    "started": (str,),
    "ended": (str,),
    "seconds": (int, float),
    "token": (str,),
    "node": (str,),
    "pid": (int,),
    "boot": (str,),
    "pid_namespace": (str,),
    "process_started": (int,),
    "resumed_from": (int,),
    "cause": (str,),
    "error": (str,),
    **dict.fromkeys(PROVENANCE, (str,)),
}
_TIMES = ("started", "ended")


def state_after(cause: str) -> Unended:
    """Return the state of a run without a result whose newest attempt has ended for ``cause``."""
    known: dict[str, Unended] = {"failed": "failed", "lost": "lost", "preempted": "preempted"}
    # What had a result that is there no more, as after `doctor --fix`.
    known |= dict.fromkeys(RESULTS, "lost")
    return known.get(cause, "cancelled")


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with a checksum of its content.

    One bit may turn a record into another one that reads as well: a digit, or a letter of a name.
    """
    return {**record, SEAL: _checksum(record)}


def is_whole(record: dict[str, Any]) -> bool:
    """Return whether a record is what was written, as far as its seal says; without one it is."""
    content = {name: value for name, value in record.items() if name != SEAL}
    return SEAL not in record or record[SEAL] == _checksum(content)


def seal_of(record: dict[str, Any]) -> str:
    """Return what tells a record from every other: its seal, or what that would be."""
    return str(record.get(SEAL) or _checksum(record))


def bury_result(path: Place) -> None:
    """Have the index of a store say that the closing record of a run or measurement, in the folder
    ``path``, is about to go: before it does, so that no crash leaves an entry of what is not there.
    """
    root, work_id = path.parent.parent, path.name
    record = read_if_readable(path / "DONE.json")
    if record is not None:
        segments.bury(root, work_id, [seal_of(record)])
        return
    # Removed by hand, or damaged: the index may vouch for what it was.
    known = segments.read(root).entries.get(work_id)
    segments.bury(root, work_id, [] if known is None else [known.seal])


def _checksum(record: dict[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def closing_record(data: Any) -> dict[str, Any] | None:
    """Return the content of a DONE.json, or None for what is not one."""
    if not isinstance(data, dict) or data.get("status") not in get_args(Status):
        return None
    step, parts, loss = data.get("step"), data.get("parts"), data.get("loss")
    if not isinstance(step, int) or not isinstance(parts, dict) or not is_whole(data):
        return None
    if loss is not None and not isinstance(loss, float):
        return None
    sound = all(_is_part(name, entry) for name, entry in parts.items())
    return data if sound else None


def _is_part(name: str, entry: Any) -> bool:
    return (
        name.count("/") == 1
        and isinstance(entry, dict)
        and isinstance(entry.get("rows"), int)
        and isinstance(entry.get("sha256"), str)
    )


def attempt_record(number: int, data: Any) -> dict[str, Any]:
    """Return an attempt with its number under ``attempt``; unknown is None, ``cause`` too."""
    record = data if isinstance(data, dict) else {}
    fields = {name: record.get(name) for name in _ATTEMPT}
    for name, kinds in _ATTEMPT.items():
        value = fields[name]
        if not isinstance(value, kinds) or (name in _TIMES and not _is_time(value)):
            fields[name] = None
    return {"attempt": number, **fields}


def _is_time(value: Any) -> bool:
    try:
        time = datetime.fromisoformat(value)
        return time.tzinfo is not None and time.astimezone(UTC) is not None
    except (ValueError, OverflowError):
        return False
