"""What a model folder or a data file holds, as a digest; and whether it still holds it.

A folder's digest is over every file that loading may read, by rule: all of them, less what it
provably never opens. Large files are hashed once a node: the digest is remembered with the file's
size, times and inode, in ``digests`` of the node's cache. A content that is put in place with its
old size and modification time (``cp -p``, tar, image layers) has another change time or inode.
``depthsweep doctor`` trusts none of it and hashes anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sweeps.errors import UserError
from sweeps.node_cache import node_cache
from sweeps.rows.row_files import COMPRESSIONS
from sweeps.sources.corpora import STANDIN_CORPUS, corpus_digest, standin_digest
from sweeps.spec import (
    BuiltinData,
    DataSource,
    FileData,
    FolderModel,
    HubData,
    HubModel,
    ModelSource,
    RunSpec,
    StandinModel,
)

Signature = tuple[int, ...]

# Smaller files are hashed each time: it takes as long as asking whether they changed.
REMEMBERED_BYTES = 4 * 2**20
# Times of a file are only as fine as its file system's clock: one that changed just now may change
# again without a trace in them, and is not remembered yet.
SETTLED_SECONDS = 2.0
# What transformers never opens: words about a model, and the weights of other frameworks.
_WORDS = re.compile(r"(readme|licen[cs]e|notice|use_policy|usage_policy)(\..*)?|.*\.md", re.I)
_OTHER_FRAMEWORKS = (".h5", ".msgpack", ".onnx", ".ot", ".tflite")
# A checkpoint that transformers' Trainer left in its output folder is a model of its own.
_TRAINER_CHECKPOINT = re.compile(r"checkpoint-\d+")


def model_files(folder: Path, *, trusted: bool) -> list[Path]:
    """Return the files of a model folder that loading may read, in the order of their names.

    Hidden files and a Trainer's own checkpoints do not count, and compiled Python never does. With
    ``trusted`` code, which may read what it likes, all else does.
    """
    return [path for path, target in _walk(folder, trusted) if target is None]


def _walk(folder: Path, trusted: bool) -> list[tuple[Path, str | None]]:
    """Return the files below a folder, and the folders that another name led to before.

    Those come with where they really are: their files count once, and the name with where it leads,
    since a link may come to lead elsewhere. Raises UserError for a folder that cannot be read.
    """
    found: list[tuple[Path, str | None]] = []
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        real = here.resolve()
        if real in seen:
            found.append((here, os.path.relpath(real, folder.resolve())))
            continue
        seen.add(real)
        try:
            entries = sorted(here.iterdir(), reverse=True)
        except OSError as error:
            raise UserError(f"{here}: cannot be read: {error.strerror or error}") from None
        for path in entries:
            if path.is_dir():
                waiting += [path] if _entered(path.name, trusted) else []
            elif path.is_file() and _may_be_read(path.name, trusted):
                found.append((path, None))
    return sorted(found, key=lambda item: item[0].relative_to(folder).as_posix())


def _entered(name: str, trusted: bool) -> bool:
    if name in ("__pycache__", ".git"):
        return False
    return trusted or not (name.startswith(".") or _TRAINER_CHECKPOINT.fullmatch(name))


def _may_be_read(name: str, trusted: bool) -> bool:
    if name.endswith(".pyc"):
        return False
    return trusted or not (
        name.startswith(".") or _WORDS.fullmatch(name) or name.lower().endswith(_OTHER_FRAMEWORKS)
    )


def folder_digest(folder: Path, *, trusted: bool, anew: bool = False) -> str:
    """Return SHA-256 over the names and contents of a model's files; ``anew`` remembers nothing."""
    digest = hashlib.sha256()
    for path, target in _walk(folder, trusted):
        name = os.fsencode(path.relative_to(folder).as_posix())
        digest.update(len(name).to_bytes(4, "big") + name)
        if target is None:
            digest.update(bytes.fromhex(sha256_of(path, anew=anew)))
        else:
            digest.update(b"->" + os.fsencode(target) + b"\0")
    return digest.hexdigest()


def data_digest(paths: Sequence[Path], *, anew: bool = False) -> str:
    """Return SHA-256 over the format of data files, which a name ends in, and the content of each,
    in order."""
    suffixes = paths[0].suffixes[-2:] if paths[0].suffix.lower() in COMPRESSIONS else None
    form = "".join(suffixes or [paths[0].suffix])
    digest = hashlib.sha256(form.lower().encode())
    for path in paths:
        digest.update(bytes.fromhex(sha256_of(path, anew=anew)))
    return digest.hexdigest()


# --------------------------------------------------------------------------------------- hashing
def sha256_of(path: Path, *, anew: bool = False) -> str:
    """Return SHA-256 of a file, remembered where it is large and has not been touched since.

    Raises UserError where it cannot be read, or changes meanwhile.
    """
    try:
        with path.open("rb") as file:
            before = _signature(os.fstat(file.fileno()))
            known = None if anew else _remembered(path, before)
            if known is not None:
                return known
            found = hashlib.file_digest(file, "sha256").hexdigest()
            after = _signature(os.fstat(file.fileno()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if before != after:
        raise UserError(f"{path}: is being written; wait until it is whole")
    _remember(path, before, found)
    return found


def _signature(stat: os.stat_result) -> Signature:
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)


def _record_of(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    return node_cache() / "digests" / f"{name}.json"


def _remembered(path: Path, signature: Signature) -> str | None:
    if signature[0] < REMEMBERED_BYTES:
        return None
    try:
        record = json.loads(_record_of(path).read_text(encoding="utf-8"))
        known = record["sha256"] if tuple(record["signature"]) == signature else None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):  # none, torn, or no home
        return None
    return known if isinstance(known, str) and re.fullmatch("[0-9a-f]{64}", known) else None


def _remember(path: Path, signature: Signature, digest: str) -> None:
    if signature[0] < REMEMBERED_BYTES:
        return
    if time.time() - max(signature[1], signature[2]) / 1e9 < SETTLED_SECONDS:
        return
    record = {"path": str(path), "signature": signature, "sha256": digest}
    # A cache that cannot be written costs time, not a run.
    with contextlib.suppress(OSError, RuntimeError):
        place = _record_of(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{secrets.token_hex(8)}.tmp")
        try:
            temporary.write_text(json.dumps(record), encoding="utf-8")
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------- comparing
def difference(source: ModelSource | DataSource, *, anew: bool = False) -> str | None:
    """Return how what is found here differs from what a source was declared as, or None.

    A source of the hub is what its commit says. Raises FileNotFoundError where a folder or file is
    not there.
    """
    if isinstance(source, (HubModel, HubData)):
        return None
    place = _place(source)
    for needed in _needed(source):
        if not needed.exists():
            raise FileNotFoundError(f"{needed} is not there")
    if isinstance(source, FolderModel):
        found = folder_digest(Path(place), trusted=source.trust_remote_code, anew=anew)
    elif isinstance(source, FileData):
        found = data_digest(source.paths, anew=anew)
    elif isinstance(source, BuiltinData):
        found = corpus_digest(source.builtin)
    else:
        found = standin_digest(source.language)
    if found == source.digest:
        return None
    return (
        f"{place} has other content than the run was declared with: {found[:12]} here,"
        f" {source.digest[:12]} declared"
    )


_REMEDY = "put the declared content back, or run the sweep file again, which makes new runs of it"


def require_content(source: ModelSource | DataSource, what: str) -> None:
    """Raise UserError unless what a source names here is what it was declared as."""
    try:
        differs = difference(source)
    except FileNotFoundError as error:
        raise UserError(f"{what}: {error} on this machine") from None
    if differs is not None:
        raise UserError(f"{what}: {differs}; {_REMEDY}")


@contextlib.contextmanager
def held_to_its_digest(source: ModelSource | DataSource, what: str) -> Iterator[None]:
    """Compare a source with its digest before it is loaded in the context, and look again after.

    Raises UserError for other content, also where it was replaced while it was being loaded.
    """
    before = _signatures(source)
    require_content(source, what)
    yield
    if _signatures(source) != before:
        raise UserError(f"{what}: was changed while it was loaded; {_REMEDY}")


def _signatures(source: ModelSource | DataSource) -> dict[str, Signature]:
    paths: Iterable[Path] = ()
    if isinstance(source, FolderModel):
        paths = model_files(Path(source.folder), trusted=source.trust_remote_code)
    elif isinstance(source, FileData):
        paths = source.paths
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found[str(path)] = _signature(path.stat())
    return found


def sources_of(runs: Iterable[RunSpec]) -> list[tuple[str, ModelSource | DataSource]]:
    """Return what runs are made of that is not pinned on the hub, each once, as errors name it."""
    found: dict[tuple[str, str], tuple[str, ModelSource | DataSource]] = {}
    for run in runs:
        for what, source in (
            (f"model {run.model.name}", run.model.source),
            *((f"model {one.name}", one.source) for one in run.model.compare_to),
            *((f"judge {one.name}", one.source) for one in run.judges),
            *((f"{of} {data.label}", data) for of, data in run.datasets.items()),
        ):
            if not isinstance(source, (HubModel, HubData)):
                found.setdefault((_place(source), source.digest), (what, source))
    return list(found.values())


def _needed(source: ModelSource | DataSource) -> tuple[Path, ...]:
    """Return the folder or files that have to be here for a source to be read."""
    if isinstance(source, FolderModel):
        return (Path(source.folder),)
    return source.paths if isinstance(source, FileData) else ()


def _place(source: FolderModel | FileData | BuiltinData | StandinModel) -> str:
    if isinstance(source, FolderModel):
        return source.folder
    if isinstance(source, FileData):
        return source.file
    name = source.builtin if isinstance(source, BuiltinData) else STANDIN_CORPUS
    return f"the corpus {name}, of the transformers that is installed here,"


def require_sources(runs: Iterable[RunSpec]) -> None:
    """Raise UserError where a source that is visible here is not what runs were declared with.

    One that is not here may be on the nodes that load it, which look for themselves.
    """
    for what, source in sources_of(runs):
        with contextlib.suppress(FileNotFoundError):
            differs = difference(source)
            if differs is not None:
                raise UserError(f"{what}: {differs}; {_REMEDY}")
