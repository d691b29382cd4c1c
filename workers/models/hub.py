"""Models and datasets of the hub: downloaded once per node, then read without the network.

Processes of a node share the hub's content-addressed cache, and a lock lets one of them download
while the others wait. A rate limit or an outage is waited for with growing pauses, so that it does
not fail the runs of a whole sweep; a repository that is not there is a user's mistake at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from sweeps.errors import UserError
from sweeps.files import patience
from sweeps.files.whole_files import read_json, whole_folder
from sweeps.leases.made_once import made_once
from sweeps.spec import HubData, HubModel, content_id

Result = TypeVar("Result")

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 120.0
PATIENCE_SECONDS = 1800.0
# What a model's folder needs beside its weights; folders below it hold exports to other formats.
FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")
OTHERS = ("*/*",)
SAFE_WEIGHTS = "*.safetensors"
PICKLED_WEIGHTS, PICKLED_INDEX = "pytorch_model*.bin", "pytorch_model*.bin.index.json"


class HubUnavailable(OSError):
    """The hub could not be reached for as long as a run waits."""


def model_folder(source: HubModel) -> Path:
    """Return a local folder with a model at its pinned revision, downloading what is missing.

    Pickled weights are fetched only where they are accepted and no others are there. Raises
    UserError for a repository or revision that is not there, HubUnavailable after long patience.
    """
    taken = (SAFE_WEIGHTS, PICKLED_WEIGHTS) if source.pickled_weights else (SAFE_WEIGHTS,)
    folder = _snapshot(source, (*FILES, SAFE_WEIGHTS), taken)
    if source.pickled_weights and not any(folder.glob(SAFE_WEIGHTS)):
        folder = _snapshot(source, (*FILES, PICKLED_INDEX, PICKLED_WEIGHTS), (PICKLED_WEIGHTS,))
    return folder


def downloaded(name: str, source: HubModel) -> Path:
    """Return ``model_folder`` of the model that errors call ``name``; what the hub says of one that
    cannot be had is raised as UserError."""
    try:
        return model_folder(source)
    except HubUnavailable:
        raise
    except (OSError, ValueError) as error:
        raise refusal(error, f"model {name} ({source.hub})") from error


def _snapshot(source: HubModel, patterns: tuple[str, ...], weights: tuple[str, ...]) -> Path:
    """Return a snapshot of the files of ``patterns``; one of this node that has weights of one of
    the kinds ``weights`` is taken as it is."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fetch(local: bool) -> Path:
        return Path(
            snapshot_download(
                source.hub,
                revision=source.revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(OTHERS),
                local_files_only=local,
            )
        )

    def find() -> Path | None:
        try:
            folder = fetch(True)
        except LocalEntryNotFoundError:
            return None
        return folder if _is_whole(folder, weights) else None

    place = Path(constants.HF_HUB_CACHE) / ".depthsweep" / content_id([source.hub, source.revision])
    return made_once(place, find, lambda: patiently(lambda: fetch(False), f"model {source.hub}"))


def _is_whole(folder: Path, weights: tuple[str, ...]) -> bool:
    """Return whether a snapshot of this node has a configuration, a tokenizer, weights of one of
    these patterns, and of those every shard that an index names.

    The hub's client takes any snapshot for whole that another client left, be it of a tokenizer or
    of the files that were asked for one by one.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}
    kinds = [kind for kind in weights if any(fnmatchcase(name, kind) for name in names)]
    of_tokens = any(sign in name for name in names for sign in ("token", "vocab", ".model"))
    shards = {
        str(shard)
        for name in names
        if name.endswith(".index.json")
        for shard in (read_json(folder / name).get("weight_map") or {}).values()
    }
    wanted = {shard for shard in shards if any(fnmatchcase(shard, kind) for kind in kinds)}
    return "config.json" in names and of_tokens and bool(kinds) and wanted <= names


def dataset_columns(data: HubData, columns: list[str]) -> Any:
    """Return the wanted split of a dataset at its pinned revision, from this node's disk.

    The columns asked for are kept as Arrow files under the dataset's content id; where one of them
    is missing the table is returned as the hub has it.
    """
    import datasets

    key = {**data.model_dump(mode="json", exclude={"stream"}), "columns": sorted(columns)}
    kept = Path(datasets.config.HF_DATASETS_CACHE) / "depthsweep" / content_id(key, 24)

    def find() -> Any:
        return datasets.load_from_disk(str(kept)) if (kept / "state.json").is_file() else None

    def make() -> Any:
        table = patiently(
            lambda: datasets.load_dataset(
                data.hub, data.config, revision=data.revision, split=data.split
            ),
            f"dataset {data.hub}",
        )
        if not set(columns) <= set(table.column_names):
            return table  # so that the caller can say what there is

        def put() -> None:
            with whole_folder(kept, still_wanted=lambda: find() is None) as aside:
                table.select_columns(columns).save_to_disk(str(aside))

        patience.patiently(put, kept)
        return find()

    return made_once(kept, find, make)


# ------------------------------------------------------------------------------------ patience
def patiently(fetch: Callable[[], Result], what: str) -> Result:
    """Return ``fetch()``, trying again while the hub refuses for now.

    A pause is the hub's own ``Retry-After`` where it says one, otherwise twice the last; a random
    part keeps nodes apart. Raises what ``fetch`` raised when that will not pass, HubUnavailable
    when patience runs out.
    """
    wait, waited = FIRST_WAIT_SECONDS, 0.0
    while True:
        try:
            return fetch()
        except Exception as error:
            asked = pause_after(error)
            if asked is None:
                raise
            if waited >= PATIENCE_SECONDS:
                raise HubUnavailable(
                    f"{what}: the hub did not give it in {waited / 60:.0f} minutes"
                    f" ({' '.join(str(error).split())[:200]}); resume when it is back"
                ) from error
        pause = max(asked, wait) * (1 + 0.25 * random.random())
        time.sleep(pause)
        waited += pause
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def pause_after(error: BaseException) -> float | None:
    """Return the seconds a passing refusal asks for, 0 where it says nothing, None if it stays."""
    if _is_offline(error):
        return None
    for cause in _chain(error):
        response = getattr(cause, "response", None)
        status = getattr(response, "status_code", None)
        if status is not None:
            if status != 429 and status < 500:
                return None
            said = response.headers.get("Retry-After", "") if response is not None else ""
            return float(said) if said.isdigit() else 0.0
        if _is_network(cause):
            return 0.0
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _is_offline(error: BaseException) -> bool:
    return "OfflineModeIsEnabled" in {type(cause).__name__ for cause in _chain(error)}


def _is_network(error: BaseException) -> bool:
    """Whether an error is of the connection: by name, since clients have changed under the hub."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(
        names & {"TransportError", "RequestException"}
    )


def refusal(error: BaseException, what: str) -> UserError:
    """Return the mistake that an error of the hub stands for: what, and what to do."""
    detail = " ".join(str(error).split())[:300]
    if _is_offline(error):
        detail = (
            "HF_HUB_OFFLINE is set and this node has no copy; unset it, or copy the hub's cache"
        )
    return UserError(f"{what}: cannot be loaded from the hub: {detail}")
