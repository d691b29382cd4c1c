"""TensorBoard: a folder of event files for each run.

What is there is read back from the files. A step is one event, so a kill leaves it whole or torn;
a torn one ends its file for every reader, and whoever goes on begins another file.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.record_writer import RecordWriter

from orchestrator.tracking.tracker import Outcome, RunCard, StepRow

EVENTS = "events.out.tfevents."
STATUS = "status"
PICTURE = "profile"
TABLE = "profiles"
# A name of the final event that no number by step has.
FINAL = "final/"
NAME_BYTES = 200


class TensorboardFiles:
    """The folder of one sweep, in which each run has one of its own."""

    kind = "tensorboard"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ended(self) -> dict[str, str]:
        """Return the last status said of each run that is there."""
        found = {}
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            status = _Written.in_folder(folder).status
            if status is not None:
                found[folder.name.split(" ")[0]] = status[1]
        return found

    def open(self, card: RunCard) -> TensorboardRun:
        """Return the run's folder; one of its id is taken, whatever its models are called now."""
        there = sorted(self._folder.glob(f"{card.key} *"))
        return TensorboardRun(there[0] if there else self._folder / folder_name(card), card)

    def close(self) -> None:
        """Nothing is held between runs."""


class TensorboardRun:
    """The event files of one run."""

    def __init__(self, folder: Path, card: RunCard) -> None:
        self._written = _Written.in_folder(folder)
        self.logged_to = self._written.last_step
        self._folder = folder
        self._writer: RecordWriter | None = None
        if not self._written.parameters:
            summary = hparams.hparams_pb(card.parameters, trial_id=card.key)
            summary.value.append(_text("run", f"{card.name}\n\n{card.sweep}\n\n{card.description}"))
            self._add(summary, 0, 0.0)

    def log(self, rows: Sequence[StepRow]) -> None:
        """Add one event a step."""
        for row in rows:
            values = [Summary.Value(tag=k, simple_value=x) for k, x in row.numbers.items()]
            self._add(Summary(value=values), row.step, row.time.timestamp())
        if self._writer is not None:
            self._writer.flush()

    def end(self, outcome: Outcome) -> None:
        """Add one event with everything that is said at the end, unless it was said."""
        said = (outcome.step, outcome.status)
        if self._written.status != said:
            values = [_text(STATUS, outcome.status)]
            values += [
                Summary.Value(tag=f"{FINAL}{name}", simple_value=x)
                for name, x in outcome.numbers.items()
            ]
            if outcome.profiles is not None and self._written.pictured != outcome.step:
                values.append(_text(TABLE, _markdown(outcome.profiles)))
                values.append(_image(PICTURE, outcome.picture("png")))
            self._add(Summary(value=values), outcome.step, outcome.time.timestamp())
            self._written.status = said
        self.leave()

    def leave(self) -> None:
        """Close the file, if one was begun."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, summary: Any, step: int, wall_time: float) -> None:
        event = Event(step=step, wall_time=wall_time)
        event.summary.CopyFrom(summary)
        if self._writer is None:  # a run of which nothing is new gets no file
            self._writer = _new_file(self._folder)
        self._writer.write(event.SerializeToString())


class _Written:
    """What a run's event files hold."""

    def __init__(self) -> None:
        self.last_step = 0
        self.parameters = False
        self.pictured: int | None = None
        self.status: tuple[int, str] | None = None

    @classmethod
    def in_folder(cls, folder: Path) -> _Written:
        found = cls()
        for event in _events(folder):
            for value in event.summary.value:
                found._take(event.step, value)
        return found

    def _take(self, step: int, value: Any) -> None:
        plugin = value.metadata.plugin_data.plugin_name
        if plugin == "hparams":
            self.parameters = True
        elif value.tag == STATUS:
            self.status = (step, value.tensor.string_val[0].decode())
        elif value.tag == PICTURE:
            self.pictured = step
        elif plugin in ("scalars", "") and not value.tag.startswith(FINAL):
            self.last_step = max(self.last_step, step)


def _events(folder: Path) -> Iterator[Any]:
    for path in sorted(folder.glob(f"{EVENTS}*")):
        yield from EventFileLoader(str(path)).Load()


def _new_file(folder: Path) -> RecordWriter:
    """Begin an event file that every reader takes after those that are there.

    Readers take files in the order of their names, in which the second is the first number and a
    writer's count, without leading zeros, the last: two files of one second would be taken in any
    order, and TensorBoard forgets steps when smaller ones follow.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = [path.name.split(".")[3] for path in folder.glob(f"{EVENTS}*")]
    second = max([int(time.time()), *(int(one) + 1 for one in there if one.isdigit())])
    name = f"{EVENTS}{second:010d}.{socket.gethostname()}.{os.getpid()}.0"
    writer = RecordWriter((folder / name).open("xb"))
    begin = Event(wall_time=time.time(), file_version="brain.Event:2")
    writer.write(begin.SerializeToString())
    return writer


def folder_name(card: RunCard) -> str:
    """Return what a run's folder is called: its key, then what it is, as TensorBoard shows it."""
    label = re.sub(r"[^\w.()=+-]+", " ", card.name.removeprefix(card.run_id)).strip()
    return f"{card.key} {label}".encode()[:NAME_BYTES].decode(errors="ignore")


def _text(tag: str, text: str) -> Any:
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()])
    tensor.tensor_shape.CopyFrom(TensorShapeProto())
    return Summary.Value(tag=tag, tensor=tensor, metadata=_of_plugin("text"))


def _image(tag: str, png: bytes) -> Any:
    # Bytes 16 to 24 of a PNG are its width and height.
    width, height = struct.unpack(">II", png[16:24])
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    return Summary.Value(tag=tag, image=image)


def _of_plugin(name: str) -> Any:
    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=name))


def _markdown(profiles: pl.DataFrame) -> str:
    lines = ["|".join(profiles.columns), "|".join("---" for _ in profiles.columns)]
    for row in profiles.iter_rows():
        lines.append("|".join(_cell(value) for value in row))
    return "\n".join(f"|{line}|" for line in lines)


def _cell(value: float | str | None) -> str:
    if isinstance(value, str):  # of a block, its class
        return value
    return "–" if value is None else f"{value:.6g}"
