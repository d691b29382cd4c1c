"""Checkpoints: each layer's float32 weights and what the optimizer keeps, and the rows beside them.

A checkpoint knows nothing of ranks or of a ZeRO stage: every layer is gathered at one rank, copied,
and written by it, so it is resumed by any engine at any world size. The data, masks and learning
rate of a step are functions of (run, step), and so is dropout, so there is no generator, position
or schedule to keep: weights, what the optimizer's rule keeps and the step are all of a run's state.

All ranks write at once, each its share of the layers, in a thread and from copies: training waits
for the copying alone, and no rank for another's files. It waits longer only where memory does not
hold the copies.

A checkpoint lies under a name that no other attempt takes and counts once its manifest is there,
which the first rank writes last, when all have told it of their files. The manifest has size and
SHA-256 of each file and of the run's Parquet parts up to the step, so that resuming never trusts
rows that a crash has torn. A run that is told to stop between two parts has the rows since the last
one among the checkpoint's files. The two newest are kept: one that turns out to be harmed has
another before it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor

from sweeps.attempts.attempt import Attempt, OnlookersAttempt, Superseded
from sweeps.attempts.writer import OnlookersWriter, RunWriter
from sweeps.files.patience import patiently
from sweeps.files.whole_files import Place, children, no_guard, remove_folder, write_json
from sweeps.spec import Keep
from sweeps.store.run_folder import RunFolder
from workers.checkpoints.cadence import (
    SPOT_NOTICE_SECONDS,
    Cadence,
    checkpoint_bytes,
    notice_in_words,
    seconds_for_notice,
)
from workers.checkpoints.layer_file import file_name, shares
from workers.checkpoints.spare_memory import spare_bytes
from workers.checkpoints.writing import POLL_SECONDS, Accounts, Writing
from workers.engines.engine import Engine
from workers.progress import PULSE
from workers.ranks.notice import Notice
from workers.ranks.process_group import ALONE, COLLECTIVE_TIMEOUT, Post, Ranks

CPU = torch.device("cpu")
# Of a run that goes on: should the newest be harmed, there is one before it.
KEPT_CHECKPOINTS = 2
# How long the first rank waits for others to stop writing what nobody wants.
DROPPED_SECONDS = 10.0


# Why a state may be saved after a step.
Due = Literal["stopped", "last", "part"]


class Checkpoints:
    """Makes the checkpoints of one attempt at a run; at most one is on its way at a time.

    ``share`` is how much of the run's time they may take, see ``Cadence``. As a context it ends
    what is on its way: with an error, by finishing it, since a run that fails goes on from there;
    where the run is another's, by dropping it.
    """

    def __init__(
        self,
        folder: RunFolder,
        engine: Engine,
        attempt: Attempt | OnlookersAttempt,
        share: float = 1.0,
        ranks: Ranks = ALONE,
        notice: Notice | None = None,
        keep: Keep = "none",
    ) -> None:
        self._keep = keep
        self._lowest: float | None = None
        if keep == "best":
            best = ranks.agree(folder.kept(keep) if ranks.leads else None)
            self._lowest = None if best is None else folder.evaluation_loss(best)
        self._folder, self._engine, self._ranks = folder, engine, ranks
        self._attempt = None if isinstance(attempt, OnlookersAttempt) else attempt
        self._label = ranks.agree(self._attempt.label if self._attempt else "")
        self._writers = shares(engine.sizes, ranks.size)
        self._post = Post() if ranks.size > 1 else None
        self._cadence = Cadence(share)
        self._bytes = checkpoint_bytes(sum(engine.sizes), len(engine.tensors) - 1)
        self._notice = notice or Notice()
        self._notice.needs(seconds_for_notice(self._bytes // ranks.size))
        self._writing: Writing | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or issubclass(kind, Superseded):
            self.drop()
        else:
            with suppress(Exception):
                self.wait()

    def save(
        self,
        step: int,
        writer: RunWriter | OnlookersWriter | None = None,
        loss: float | None = None,
        *,
        must: bool = True,
        evaluation_loss: float | None = None,
    ) -> None:
        """Begin to write the state after ``step``, if it is time for it or it ``must`` be.

        Returns once it is copied. The parts up to ``step`` must have been written before by
        ``writer``, whose rows since the last part go into the checkpoint. A collective. Raises what
        has gone wrong with the one before: Superseded where the run is another attempt's by then.
        ``evaluation_loss`` is what the weights lose on held-out examples, where that is known.
        """
        if not must and not self._ranks.agree(self._may_begin()):
            return
        self.wait()
        began = time.monotonic()
        path = self._folder.checkpoint_path(step, self._label)
        then, guard = partial(self._tell, path, began), no_guard
        if self._attempt is not None:
            manifest = {"step": step, "files": {}, "parts": {}}
            if evaluation_loss is not None:
                manifest["evaluation_loss"] = evaluation_loss
            if writer is not None:
                manifest |= {"parts": writer.parts(), "files": writer.keep(path)}
            then = partial(self._complete, path, began, manifest, loss)
            guard = self._attempt.require_not_superseded
        room = spare_bytes(self._ranks.size)
        self._writing = Writing(path, self._folder.path, room, guard, then)
        try:
            self._copy_layers(self._writing)
        except BaseException:  # some layers are not a checkpoint
            self._writing.drop()
            raise
        self._writing.close()

    def after(
        self,
        step: int,
        writer: RunWriter | OnlookersWriter,
        loss: float | None,
        due: Due | None,
        evaluation_loss: float | None,
    ) -> None:
        """Save the state after a step where that is due, or it is the best so far; a collective.

        ``due`` says that the run is told to stop there, that it is its last step, or that a part of
        its rows ends with it. See ``save`` and ``is_best``.
        """
        best = self.is_best(evaluation_loss)
        must = due == "stopped" or best or (due == "last" and self._keep == "final")
        if must or due == "part":
            self.save(step, writer, loss, must=must, evaluation_loss=evaluation_loss)

    def is_best(self, evaluation_loss: float | None) -> bool:
        """Return whether the weights of now are to be kept for the lowest loss on held-out examples
        so far, where that is asked for; the next question is about lower ones."""
        if self._keep != "best" or evaluation_loss is None:
            return False
        if self._lowest is not None and not evaluation_loss < self._lowest:
            return False
        self._lowest = evaluation_loss
        return True

    def check(self) -> None:
        """Raise what has gone wrong in the thread, if anything has."""
        if self._writing is not None:
            self._writing.check()

    def wait(self) -> None:
        """Wait until what is on its way counts, as far as this rank has to do with it."""
        if self._writing is not None:
            self._writing.wait()

    def drop(self) -> None:
        """Give up what is on its way; no file of it is put in place any more."""
        if self._writing is not None:
            self._writing.drop()

    def _may_begin(self) -> bool:
        """Return whether it is time for one. Where none is left out, the last is waited for."""
        going = self._writing is not None and self._writing.goes_on
        return self._cadence.due(time.monotonic()) and (not going or self._cadence.share == 1.0)

    def _copy_layers(self, writing: Writing) -> None:
        for i, (group, to) in enumerate(zip(self._engine.groups, self._writers, strict=True)):
            tensors: dict[str, Tensor] = {}
            for which in self._engine.tensors:
                for k, tensor in self._engine.layer(i, which, CPU, to=to).items():
                    tensors[f"{which}/{group.names[k]}"] = tensor
            if to == self._ranks.rank:
                writing.add(file_name(group), tensors)
            PULSE.beat()

    # ------------------------------------------------------------------------------ in the thread
    def _tell(self, path: Place, began: float, writing: Writing, files: Accounts) -> None:
        """Tell the first rank of this one's files."""
        del writing
        assert self._post is not None
        self._post.send(f"{path.name}/{self._ranks.rank}", {"files": files})
        if files is not None:
            self._measure(time.monotonic() - began)

    def _complete(
        self,
        path: Place,
        began: float,
        manifest: dict[str, Any],
        loss: float | None,
        writing: Writing,
        files: Accounts,
    ) -> None:
        """Make the checkpoint count once all files are there; put those before the last away."""
        attempt = self._attempt
        assert attempt is not None
        for told in [files, *self._others(path, writing)]:
            if told is None:
                return
            manifest["files"] |= told
        guard = attempt.require_not_superseded
        last = path / "manifest.json"
        patiently(partial(write_json, last, manifest, guard, within=self._folder.path), path)
        ended = time.monotonic()
        self._cadence.took(began, ended)
        self._measure(ended - began)
        self._say(manifest, ended - began, loss)
        attempt.require_ownership()
        kept = self._folder.checkpoints()[-KEPT_CHECKPOINTS:]
        if self._keep == "best":
            kept.append(self._folder.kept(self._keep) or path)
        for older in children(self._folder.path / "checkpoints"):
            if older not in kept:
                remove_folder(older)

    def _others(self, path: Place, writing: Writing) -> list[Accounts]:
        """Return what the other ranks say of their files, once all have said it.

        Also of a checkpoint that is given up it is waited for, a while, that they write no more.
        """
        said: list[Accounts] = []
        until = time.monotonic() + COLLECTIVE_TIMEOUT.total_seconds()
        for rank in range(1, self._ranks.size):
            assert self._post is not None
            while (words := self._post.receive(f"{path.name}/{rank}")) is None:
                if writing.dropped:
                    until = min(until, time.monotonic() + DROPPED_SECONDS)
                if time.monotonic() > until and writing.dropped:
                    return [None]
                if time.monotonic() > until:
                    raise RuntimeError(
                        f"run {self._folder.run_id}: rank {rank} has said nothing of its layers of"
                        f" {path.name} for {COLLECTIVE_TIMEOUT.total_seconds() / 60:.0f} minutes"
                    )
                writing.moves()
                time.sleep(POLL_SECONDS)
            said.append(words["files"])
        return said

    def _measure(self, seconds: float) -> None:
        """Take in what a checkpoint takes here: what a notice must leave time for."""
        size = self._bytes
        self._notice.needs(seconds_for_notice(size, size / max(seconds, 1e-9)))

    def _say(self, manifest: dict[str, Any], seconds: float, loss: float | None) -> None:
        assert self._attempt is not None
        size = sum(entry["bytes"] for entry in manifest["files"].values())
        words = notice_in_words(size, size / seconds, self._cadence.share, SPOT_NOTICE_SECONDS)
        self._attempt.log(
            "checkpoint",
            step=manifest["step"],
            loss=loss,
            bytes=size,
            seconds=round(seconds, 3),
            notice=words,
        )
