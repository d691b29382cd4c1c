"""What a tracker shows of a sweep's runs, read back as its own users would."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Shown:
    """One run: its losses as (step, value) in the order they are kept, and what is said of it."""

    name: str
    losses: list[tuple[int, float]]
    parameters: dict[str, str]
    numbers: dict[str, float]
    status: str | None
    table_rows: int
    picture: bytes


def by_run(shown: list[Shown]) -> dict[str, Shown]:
    """Return what is shown by run id, which each name begins with; none may be there twice."""
    found = {one.name.split(" ")[0].split("-")[0]: one for one in shown}
    assert len(found) == len(shown), [one.name for one in shown]
    return found


# ------------------------------------------------------------------------------------ TensorBoard
def in_tensorboard(folder: Path) -> list[Shown]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    found = []
    for place in sorted(folder.iterdir()):
        everything = dict.fromkeys(("scalars", "tensors", "images"), 0)
        events = EventAccumulator(str(place), size_guidance=everything)
        events.Reload()
        tags = events.Tags()
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info

        def texts(tag: str, events: Any = events, tags: Any = tags) -> list[str]:
            kept = events.Tensors(tag) if tag in tags["tensors"] else []
            return [one.tensor_proto.string_val[0].decode() for one in kept]

        images = events.Images("profile") if "profile" in tags["images"] else []
        tables = texts("profiles")
        assert len(images) == len(tables) == len({image.step for image in images})
        finals = [tag for tag in tags["scalars"] if tag.startswith("final/")]
        assert all(len(events.Scalars(tag)) == 1 for tag in finals)
        loss = events.Scalars("loss") if "loss" in tags["scalars"] else []
        found.append(
            Shown(
                place.name,
                [(one.step, one.value) for one in loss],
                {name: _text_of(value) for name, value in start.hparams.items()},
                {tag.removeprefix("final/"): events.Scalars(tag)[0].value for tag in finals},
                (texts("status") or [None])[-1],
                tables[-1].count("\n") - 1 if tables else 0,
                images[-1].encoded_image_string if images else b"",
            )
        )
    return found


def _text_of(value: Any) -> str:
    chosen = getattr(value, value.WhichOneof("kind"))
    return str(int(chosen)) if isinstance(chosen, float) and chosen.is_integer() else str(chosen)


# ----------------------------------------------------------------------------------------- MLflow
def in_mlflow(uri: str, experiment: str) -> list[Shown]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    known = client.get_experiment_by_name(experiment)
    found = []
    for run in client.search_runs([known.experiment_id]) if known else ():
        history = client.get_metric_history(run.info.run_id, "loss")
        artifacts = {one.path for one in client.list_artifacts(run.info.run_id)}

        def read(name: str, there: set[str] = artifacts, of: str = run.info.run_id) -> bytes:
            return Path(client.download_artifacts(of, name)).read_bytes() if name in there else b""

        metrics = run.data.metrics
        found.append(
            Shown(
                run.info.run_name,
                [(one.step, one.value) for one in history],
                dict(run.data.params),
                {k.removeprefix("final."): x for k, x in metrics.items() if k.startswith("final.")},
                run.data.tags.get("depthsweep.status"),
                max(read("profiles.csv").count(b"\n") - 1, 0),
                read("profile.svg"),
            )
        )
    return found


# ------------------------------------------------------------------------------------------- W&B
def in_wandb(folder: Path) -> list[Shown]:
    """Read offline runs as ``wandb sync`` would: the records of each run's log file."""
    found = []
    for place in sorted(folder.glob("offline-run-*")):
        (log,) = place.glob("run-*.wandb")
        shown = Shown("", [], {}, {}, None, 0, b"")
        for record in _records(log.read_bytes()):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                shown.name = record.run.display_name
                shown.parameters = {
                    one.key: str(json.loads(one.value_json))
                    for one in record.run.config.update
                    if not one.key.startswith("_")
                }
            elif kind == "history":
                line = {".".join(one.nested_key) or one.key: one for one in record.history.item}
                loss = json.loads(line["loss"].value_json)
                shown.losses.append((record.history.step.num, loss))
            elif kind == "summary":
                for one in record.summary.update:
                    _take(shown, place, one.key, json.loads(one.value_json))
        found.append(shown)
    return found


def _take(shown: Shown, place: Path, key: str, value: Any) -> None:
    if key == "status":
        shown.status = value
    elif key == "profiles":
        shown.table_rows = value["nrows"]
    elif key == "profile":
        shown.picture = (place / "files" / value["path"]).read_bytes()
    elif isinstance(value, float):
        shown.numbers[key] = value


def _records(data: bytes) -> Iterator[Any]:
    """Yield the records of a log: a header of 7 bytes, then LevelDB's blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert data[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or the last piece of one
            yield Record.FromString(whole)
            whole = b""
