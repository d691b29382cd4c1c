"""The release of transformers that is installed is one of the range that was tested."""

import os
import tomllib
from pathlib import Path

import transformers
from packaging.requirements import Requirement

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
(RANGE,) = [one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "transformers"]


def test_the_release_that_is_installed_is_one_of_the_range():
    assert RANGE.specifier.contains(transformers.__version__)
    # `make test-oldest` and `make test-newest` say which one they mean.
    assert transformers.__version__ == os.environ.get(
        "TRANSFORMERS_RELEASE", transformers.__version__
    )


def test_the_range_has_two_ends_that_can_be_installed():
    assert sorted(one.operator for one in RANGE.specifier) == ["<=", ">="]
