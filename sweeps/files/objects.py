"""The files of a store on an object store: one fsspec URL, and nothing assumed but whole PUTs.

What the protocol relies on: a PUT of one object is seen whole or not at all, a GET or LIST after it
sees it, and a PUT may be made conditional, on there being no such object or on its tag: the server
decides. There is no rename, no folder, and no time that two machines agree on.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from sweeps.errors import UserError
from sweeps.files.object_client import Entry as Entry
from sweeps.files.object_client import entry_of, file_system, put_if
from sweeps.files.patience import StoreRefused, patiently, telling_of_silence
from sweeps.files.refusals import advice, is_missing_bucket, is_unmet, may_pass, said

Result = TypeVar("Result")

# Objects that make others count. They go first, so that a half-deleted thing never counts.
_CLOSING = ("DONE.json", "manifest.json")


class _Unmet(Exception):
    """The condition on a write did not hold, so nothing was written."""


class ObjectFiles:
    """Objects under one URL, by keys relative to it.

    Until a first request has succeeded every error is the user's (UserError, at once): a wrong
    bucket, no credentials, no server. From then on, and from the start where ``waits``, a request
    that fails is tried again for as long as ``patience`` says, and StoreUnavailable ends it; what
    will not pass, as a right that is missing, is StoreRefused at once.
    FileNotFoundError is an answer, and always raised at once.
    """

    def __init__(self, url: str, *, waits: bool = False) -> None:
        self.url = url.rstrip("/")
        self._waits = waits
        self._system, root = file_system(self.url)
        self._root = root.rstrip("/")
        self._checksums: dict[tuple[str, str], str] = {}
        # Ceph's gateway compares tags without the quotes that its answers and the standard have.
        self._bare_tags = False

    def listing(self, prefix: str) -> dict[str, Entry]:
        """Return every object below a prefix that ends at a slash, however deep, in one go."""
        found = self._ask(
            lambda: self._system.find(self._place(prefix), detail=True), missing_bucket=True
        )
        return {
            self._key(name): entry_of(info)
            for name, info in sorted(found.items())
            if info.get("type", "file") == "file"
        }

    def children(self, prefix: str) -> list[str]:
        """Return the names one level below a prefix, of objects and of what looks like folders."""
        try:
            found = self._ask(
                lambda: self._system.ls(self._place(prefix), detail=False), missing_bucket=True
            )
        except FileNotFoundError:
            return []
        names = {PurePosixPath(name.rstrip("/")).name for name in found}
        return sorted(names - {PurePosixPath(self._place(prefix)).name} - {""})

    def get(self, key: str) -> bytes:
        """Return an object; raise FileNotFoundError where there is none."""
        data = self._ask(lambda: self._system.cat_file(self._place(key)))
        assert isinstance(data, bytes)
        return data

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return objects side by side; one that has gone meanwhile is left out."""
        places = {self._place(key): key for key in keys}
        if not places:
            return {}

        def ask() -> dict[str, Any]:
            found: dict[str, Any] = self._system.cat(list(places), on_error="return")
            for value in found.values():
                if isinstance(value, Exception) and not isinstance(value, FileNotFoundError):
                    raise value
            return found

        found = self._ask(ask)
        return {
            places[name]: data for name, data in found.items() if not isinstance(data, Exception)
        }

    def exists(self, key: str) -> bool:
        try:
            info = self._ask(lambda: self._system.info(self._place(key)))
        except FileNotFoundError:
            return False
        return bool(info["type"] == "file")

    def download(self, key: str, path: Path) -> None:
        self._ask(lambda: self._system.get_file(self._place(key), str(path)))

    def put(self, key: str, data: bytes) -> None:
        self._ask(lambda: self._system.pipe_file(self._place(key), data), missing_bucket=True)

    def create(self, key: str, data: bytes) -> str | None:
        """Put an object if there is none; return its tag, or None where another one is there.

        An answer may be lost and the request made again: the object that is there then is ours if
        it holds what we wrote, which must name its writer.
        """
        return self._conditional(key, data, None)

    def replace_if(self, key: str, data: bytes, tag: str) -> str | None:
        """Replace an object if it has the tag still; return the new one, or None where it has not.

        Of an answer that was lost as ``create`` says.
        """
        return self._conditional(key, data, tag)

    def _conditional(self, key: str, data: bytes, wanted: str | None) -> str | None:
        place = self._place(key)
        sent = wanted.strip('"') if wanted is not None and self._bare_tags else wanted
        try:
            put = self._ask(
                lambda: put_if(self._system, place, data, sent),
                missing_bucket=True,
                patient=False,
            )
        except (_Unmet, FileNotFoundError):
            tag = self.tag(key)
            if tag is not None and tag == sent and '"' in sent:
                # The server says of the tag that it has that it has another one. Only such a
                # server is asked without the quotes: others might ignore what they cannot read.
                self._bare_tags = True
                made = self._conditional(key, data, wanted)
                self._bare_tags = made is not None
                return made
            try:
                return tag if tag is not None and self.get(key) == data else None
            except FileNotFoundError:
                return None
        return put or self.tag(key)

    def tag(self, key: str) -> str | None:
        """Return the tag of an object as it is now, None where there is none."""
        try:
            return entry_of(self._ask(lambda: self._system.info(self._place(key)))).tag
        except FileNotFoundError:
            return None

    def upload(self, path: Path, key: str) -> None:
        """Put a local file in place.

        An error that may pass is raised as OSError and not waited for: whoever waits must ask anew
        whether the run is still theirs before they try again.
        """
        self._ask(
            lambda: self._system.put_file(str(path), self._place(key)),
            missing_bucket=True,
            patient=False,
        )

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects in the order given, those that close something one by one and first."""
        keys = list(keys)
        closing = [key for key in keys if PurePosixPath(key).name in _CLOSING]
        for key in [*closing, *(key for key in keys if key not in set(closing))]:
            with contextlib.suppress(FileNotFoundError):
                self._ask(partial(self._system.rm_file, self._place(key)))

    def checksum(self, key: str, entry: Entry, read: Callable[[], str]) -> str:
        """Return ``read()``, once for each version of an object that this process has seen."""
        known = (key, entry.version)
        if known not in self._checksums:
            self._checksums[known] = read()
        return self._checksums[known]

    def _place(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/")

    def _key(self, name: str) -> str:
        return name.removeprefix(f"{self._root}/")

    def _ask(
        self,
        request: Callable[[], Result],
        *,
        missing_bucket: bool = False,
        patient: bool = True,
    ) -> Result:
        def once() -> Result:
            try:
                return request()
            except FileNotFoundError as error:
                if missing_bucket and is_missing_bucket(error):
                    raise StoreRefused(f"--store {self.url}: {advice(error)}") from error
                raise
            except Exception as error:  # each client has errors of its own, few of them OSErrors
                if is_unmet(error):
                    raise _Unmet from error
                if not may_pass(error):
                    raise StoreRefused(f"--store {self.url}: {advice(error)}") from error
                raise OSError(errno.EIO, said(error)) from error

        if self._waits:
            return patiently(once, self.url) if patient else once()
        try:
            with telling_of_silence(f"--store {self.url}"):
                result = once()
        except (FileNotFoundError, _Unmet):
            self._waits = True
            raise
        except StoreRefused:
            raise
        except OSError as error:
            raise UserError(f"--store {self.url}: {advice(error.__cause__ or error)}") from error
        self._waits = True
        return result


@dataclass(frozen=True, eq=False)
class ObjectPath:
    """One object, or what looks like a folder of them, with the part of pathlib a store needs."""

    files: ObjectFiles
    key: str = ""

    def __str__(self) -> str:
        return f"{self.files.url}/{self.key}".rstrip("/")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: ObjectPath) -> bool:
        return self.key < other.key

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.files, f"{self.key}/{name}".lstrip("/"))

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> ObjectPath:
        key = str(PurePosixPath(self.key).parent)
        return ObjectPath(self.files, "" if key == "." else key)

    def relative_to(self, folder: ObjectPath) -> PurePosixPath:
        return PurePosixPath(self.key).relative_to(folder.key)

    def exists(self) -> bool:
        return self.files.exists(self.key)

    def is_file(self) -> bool:
        return self.files.exists(self.key)

    def is_dir(self) -> bool:
        """Return whether there is any object below."""
        return bool(self.names())

    def names(self) -> list[str]:
        """Return what stands one level below, as ``os.listdir`` does."""
        return self.files.children(self.key)

    def iterdir(self) -> Iterator[ObjectPath]:
        return (self / name for name in self.names())

    def entries(self) -> dict[str, Entry]:
        """Return the listing of all objects below, by their keys relative to here."""
        start = f"{self.key}/" if self.key else ""
        return {key.removeprefix(start): entry for key, entry in self.files.listing(start).items()}

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Yield the objects below that match, part by part."""
        wanted = pattern.split("/")
        fixed = 0
        while fixed < len(wanted) - 1 and "*" not in wanted[fixed]:
            fixed += 1
        start = self
        for part in wanted[:fixed]:
            start = start / part
        for key in start.entries():
            parts = key.split("/")
            if len(parts) == len(wanted) - fixed and all(
                fnmatchcase(part, want) for part, want in zip(parts, wanted[fixed:], strict=True)
            ):
                yield start / key

    def read_bytes(self) -> bytes:
        return self.files.get(self.key)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes) -> None:
        self.files.put(self.key, data)

    def unlink(self, missing_ok: bool = True) -> None:
        del missing_ok  # deleting what is not there is no error on an object store
        self.files.delete([self.key])

    def remove_all(self) -> None:
        """Delete every object below; what makes others count goes first, attempts go last."""
        keys = [f"{self.key}/{key}" for key in self.entries()]
        self.files.delete(sorted(keys, key=lambda key: "/attempts/" in key))


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a local folder for files on their way to or from an object store."""
    folder = Path(tempfile.mkdtemp(prefix="depthsweep-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
