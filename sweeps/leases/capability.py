"""Whether a place keeps what a store relies on: exactly the operations used, tried out.

A file system may lack hard links, and a server may take conditional writes and ignore the
condition. Nothing would be noticed until two processes meet, and then a result would be lost.
"""

from __future__ import annotations

import errno
import secrets

from sweeps.files.records import create, replace_if, versions
from sweeps.files.whole_files import Place, is_local, read_json, remove_folder

# What every process that looks finds, after the first one has made it.
COMMON = "common.json"


def shortcoming(root: Place) -> str | None:
    """Return what a store's place cannot do, and what helps; None where it does all that is needed.

    Leaves nothing behind but ``probe/common.json``, which each process tries to create anew: so
    that of two machines one is refused is tried as well. Raises OSError for what may pass.
    """
    probe = root / "probe"
    mine, token = probe / secrets.token_hex(6) / "1.json", secrets.token_hex(8)
    try:
        create(probe / COMMON, {"made_by": token}, within=root)
        if create(probe / COMMON, {"made_by": f"not {token}"}) is not None:
            return _not_exclusive(root)
        first = create(mine, {"token": token}, token, within=root)
        if first is None or versions(mine.parent) != {"1.json": first}:
            return f"{root}: what was written just now is not seen: {_remedy(root)}"
        second = replace_if(mine, {"token": token, "number": 2}, first, token)
        third = replace_if(mine, {"token": token, "number": 3}, first, token)
        if second is None or third is not None or read_json(mine).get("number") != 2:
            return _not_exclusive(root)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV):
            return f"{root}: this file system makes no hard links: {_remedy(root)}"
        raise
    finally:
        remove_folder(mine.parent)
    return None


def _not_exclusive(root: Place) -> str:
    if is_local(root):
        return f"{root}: two processes may create or replace one file here: {_remedy(root)}"
    return (
        f"{root}: the server ignores the conditions If-None-Match and If-Match, so two processes"
        f" would overwrite each other's results: {_remedy(root)}"
    )


def _remedy(root: Place) -> str:
    if is_local(root):
        return (
            "give a folder on a local disk, NFS (mounted without `nocto`), Lustre or another POSIX"
            " file system, or a URL of an object store"
        )
    return "use a server that honours them, such as AWS S3, Ceph, SeaweedFS or MinIO, or a folder"
