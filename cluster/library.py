"""The profiles that come with depthsweep, and those of a user: a name or a path to a profile."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from cluster.profile import KINDS, Profile
from sweeps.declaration.yaml_source import YamlSource
from sweeps.errors import UserError, closest

PROFILES = Path(__file__).with_name("profiles")


def profile_names() -> list[str]:
    """Return the names of the profiles that come with depthsweep."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def profile_path(name: str) -> Path:
    """Return the file a user means by ``name``; raise UserError listing the names there are."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name)
    path = PROFILES / f"{name}.yaml"
    if not path.is_file():
        hint = closest(name, profile_names())
        raise UserError(f"no cluster profile {name!r}; {hint} (or give the path of a .yaml file)")
    return path


def read_profile(name: str) -> Profile:
    """Return the profile of a name or a file; raise UserError with file and line."""
    source = YamlSource.read(str(profile_path(name)), "the cluster profile")
    value = source.value()
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in KINDS:
        said = f"unknown kind {kind!r}" if kind else "`kind` is required"
        raise UserError(f"{source.where('kind')}: {said}; valid: {', '.join(sorted(KINDS))}")
    return cast(Profile, source.validate(KINDS[kind]))
