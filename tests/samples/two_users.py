"""Two users of one group on this machine, for tests that run as root.

Each is a process with rights of its own. One has a uid of its own; the other has root's, and
nothing else of it: no capability is left. Where the interpreter lies in a folder that only root may
enter, the first may read everything, so that it can start at all; what it may read is then told by
the modes of files, see ``unreadable``.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

GROUP = 4300
ANN, BEN = 4301, 0

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="plays two users: needs root, and setpriv",
)


def as_user(uid, arguments, umask=0o002, **options):
    """Run this interpreter as a user, with what it says as text."""
    rights = ["--regid", str(GROUP), "--groups", str(GROUP)]
    if uid != BEN and not _anyone_may_start(Path(sys.executable)):
        kept = "-all,+dac_read_search"
        rights += ["--reuid", str(uid), f"--inh-caps={kept}", f"--ambient-caps={kept}"]
    elif uid != BEN:
        rights += ["--reuid", str(uid)]
    else:
        rights += ["--bounding-set=-all", "--inh-caps=-all"]
    return subprocess.run(
        ["setpriv", *rights, sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        umask=umask,
        **options,
    )


def _anyone_may_start(program):
    whole = [program, program.resolve()]
    return all(p.stat().st_mode & stat.S_IXOTH for one in whole for p in (one, *one.parents))


def shared_folder(path):
    """Make a folder of the group whose members may all write it, and reach it."""
    path.mkdir(parents=True)
    os.chown(path, ANN, GROUP)
    path.chmod(0o2775)
    scratch = Path(tempfile.gettempdir())
    for parent in (one for one in path.parents if scratch in one.parents):
        parent.chmod(parent.stat().st_mode | 0o055)
    return path


def unreadable(folder, *, replaceable=True):
    """Return what of a folder another member of the group could not read, or not replace."""
    wrong = []
    for path in [folder, *folder.rglob("*")]:
        mode = path.lstat().st_mode
        wanted = stat.S_IRGRP
        if path.is_dir():
            wanted |= stat.S_IXGRP | (stat.S_IWGRP if replaceable else 0)
        elif replaceable and path.suffix in (".lock", ".log"):
            wanted |= stat.S_IWGRP
        if not path.is_symlink() and mode & wanted != wanted:
            wrong.append(f"{stat.filemode(mode)} {path.relative_to(folder)}")
    return wrong
