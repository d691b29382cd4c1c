"""What pyproject.toml cannot say: a wheel keeps the commit that it was built from, so that its runs
record it as those of a checkout do. ``workers/run_record.py`` reads it."""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

COMMIT = Path("workers", "built_from.txt")


class BuildWithCommit(build_py):
    """Writes the commit into the build, never into the checkout; nothing where there is no git."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        words = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
        try:
            said = subprocess.run(words, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return
        (Path(self.build_lib) / COMMIT).write_text(said.stdout, encoding="ascii")


setup(cmdclass={"build_py": BuildWithCommit})
