"""The client of an object store: which one a URL asks for, and what its answers say.

Credentials come from where the client looks for them (environment, its own configuration), never
from the URL.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sweeps.errors import UserError

# What says that an object was written anew, by file system: whichever of them is there.
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "created", "mtime")


@dataclass(frozen=True)
class Entry:
    """What a listing says of an object: ``version`` changes when it is written anew, and ``tag`` is
    what a condition on a write names."""

    size: int
    version: str
    tag: str = ""


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path of the URL in it."""
    parts = urlsplit(url)
    scheme = f"{parts.scheme}://"
    if "@" in parts.netloc or parts.password:
        raise UserError(
            f"--store {scheme}…@…: the URL holds credentials; leave them to the environment or the"
            " configuration of the client (for s3: AWS_ACCESS_KEY_ID, AWS_PROFILE, …)"
        )
    if parts.query or parts.fragment or "::" in url:
        raise UserError(f"--store {scheme}…: give scheme, bucket and prefix, nothing else")
    if parts.scheme in ("file", "local"):
        raise UserError(f"--store {url}: a local folder is given as its path")
    if not parts.netloc:
        raise UserError(f"--store {url}: names no bucket; write {scheme}bucket/prefix")
    import fsspec

    try:
        kind = fsspec.get_filesystem_class(parts.scheme)
    except ImportError as error:
        extra = (
            " pip install -e '.[s3]' where depthsweep was cloned"
            if parts.scheme in ("s3", "s3a")
            else f" {error}"
        )
        raise UserError(f"--store {url}: its client is not installed:{extra}") from None
    except ValueError:
        raise UserError(
            f"--store {url}: no client knows {scheme}; give a folder or an s3:// URL"
        ) from None
    if "host" in inspect.signature(kind.__init__).parameters:  # ftp, sftp, smb
        raise UserError(
            f"--store {url}: {scheme} is no object store; give a folder or an s3:// URL"
        )
    # What another machine has written is seen only without a listing kept from before.
    return kind(use_listings_cache=False, skip_instance_cache=True), kind._strip_protocol(url)


def entry_of(info: dict[str, Any]) -> Entry:
    tag = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    return Entry(info["size"], f"{tag} {info['size']}", tag)


def condition(system: Any, unless_there: bool, tag: str = "") -> dict[str, str]:
    """Return what makes a PUT exclusive (If-None-Match: *), or conditional on a tag (If-Match).

    Raises UserError for a client of which it is not known how to ask for that.
    """
    if "s3" not in system.protocol:
        raise UserError(
            "--store: it needs writes that a server makes only if nobody else has, which"
            " depthsweep asks of s3:// servers alone so far; give an s3:// URL or a folder"
        )
    return {"mode": "create"} if unless_there else {"IfMatch": tag}


def tag_of(answer: Any) -> str:
    """Return the tag that the answer to a PUT names, "" where it names none."""
    return str(answer.get("ETag") or "") if isinstance(answer, dict) else ""
