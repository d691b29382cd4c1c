"""The client of an object store: which one a URL asks for, and what its answers say.

Credentials come from where the client looks for them (environment, its own configuration), never
from the URL.
"""

from __future__ import annotations

import inspect
import json
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sweeps.errors import UserError
from sweeps.files.refusals import said

# What says that an object was written anew, by file system: whichever of them is there first, which
# is what conditions name, too. (Google's servers compare generations.)
_VERSIONS = ("generation", "ETag", "etag", "md5Hash", "LastModified", "created", "mtime")
# The clients that are extras of this package, by the schemes of their URLs.
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "azure"),
}


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
    if not url.startswith(parts.scheme):
        raise UserError(f"--store {url}: a scheme is written in lower case: {scheme}")
    if parts.scheme in ("file", "local"):
        raise UserError(f"--store {url}: a local folder is given as its path")
    if parts.scheme in ("http", "https"):
        raise UserError(
            f"--store {url}: {scheme} is no object store; give an s3://, gs:// or az:// URL, and"
            " tell its client the address of the server (for s3: AWS_ENDPOINT_URL)"
        )
    if not parts.netloc:
        raise UserError(f"--store {scheme}: names no bucket; write {scheme}bucket/prefix")
    import fsspec

    try:
        kind = fsspec.get_filesystem_class(parts.scheme)
    except ImportError as error:
        extra = EXTRAS.get(parts.scheme)
        extra = (
            f" pip install -e '.[{extra}]' where depthsweep was cloned" if extra else f" {error}"
        )
        raise UserError(f"--store {url}: its client is not installed:{extra}") from None
    except ValueError:
        raise UserError(
            f"--store {url}: no client knows {scheme}; give a folder, or an s3://, gs:// or az://"
            " URL"
        ) from None
    if "host" in inspect.signature(kind.__init__).parameters:  # ftp, sftp, smb
        raise UserError(
            f"--store {url}: {scheme} is no object store; give a folder, or an s3://, gs:// or az://"
            " URL"
        )
    try:
        # What another machine has written is seen only without a listing kept from before.
        system = kind(use_listings_cache=False, skip_instance_cache=True)
    except Exception as error:  # what a client says that is told too little to begin with
        raise UserError(
            f"--store {url}: its client does not start ({said(error)}); tell it the account and the"
            " credentials through its environment or configuration (for az:"
            " AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and …_KEY; for gs:"
            " GOOGLE_APPLICATION_CREDENTIALS)"
        ) from error
    return system, kind._strip_protocol(url)


def entry_of(info: dict[str, Any]) -> Entry:
    tag = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    return Entry(info["size"], f"{tag} {info['size']}", tag)


def put_if(system: Any, place: str, data: bytes, tag: str | None) -> str:
    """Put an object if its tag is the one given, or if there is none where that is None: the
    server decides (If-Match, If-None-Match: *, ifGenerationMatch). Return the new tag, "" where the
    answer names none.

    Raises what the client raises where it does not hold, and UserError for a client of which it is
    not known how to ask for that.
    """
    spoken = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    if "s3" in spoken:
        terms: dict[str, Any] = {"mode": "create"} if tag is None else {"IfMatch": tag}
        return _tag_of(system.pipe_file(place, data, **terms))
    if "abfs" in spoken:
        return _tag_of(system.pipe_file(place, data, **_azure_terms(tag)))
    if "gs" in spoken:
        return _put_to_google(system, place, data, tag or "0")
    raise UserError(
        "--store: it needs writes that a server makes only if nobody else has, which depthsweep"
        " asks of s3://, gs:// and az:// servers alone; give such a URL, or a folder"
    )


def _put_to_google(system: Any, place: str, data: bytes, generation: str) -> str:
    """Put an object if its generation is the one given, 0 for none: gcsfs itself asks for the
    latter alone. In the form that gcsfs uses, a request of two parts."""
    bucket, key, _ = system.split_path(place)
    boundary = secrets.token_hex(16)
    parts = (
        ("application/json; charset=UTF-8", json.dumps({"name": key}).encode()),
        ("application/octet-stream", data),
    )
    lines = [
        f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + part + b"\r\n"
        for kind, part in parts
    ]
    answer = system.call(
        "POST",
        f"{system._location}/upload/storage/v1/b/{{}}/o",
        bucket,
        uploadType="multipart",
        ifGenerationMatch=generation,
        headers={"Content-Type": f'multipart/related; boundary="{boundary}"'},
        data=b"".join(lines) + f"--{boundary}--".encode(),
        json_out=True,
    )
    return str(answer["generation"])


def _azure_terms(tag: str | None) -> dict[str, Any]:
    if tag is None:
        return {"mode": "create"}
    from azure.core import MatchConditions

    return {"etag": tag, "match_condition": MatchConditions.IfNotModified}


def _tag_of(answer: Any) -> str:
    if not isinstance(answer, dict):
        return ""
    return str(answer.get("ETag") or answer.get("etag") or "")
