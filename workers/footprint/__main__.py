"""The footprint of runs, for a process that does not import torch: ``python -m workers.footprint``.

A line in is ``{"run": specification, "only": null}``, or with ``size`` or ``usable`` there, and the
texts of the user's own code under ``code`` where it needs some; a line out has one of ``traced``
(or ``size``, or ``usable``), ``refused`` (the run cannot be carried out) and ``unknown``, with what
there is to say.
"""

from __future__ import annotations

import json
import sys
import textwrap
import warnings
from typing import Any

LONGEST = 299


def main() -> int:
    warnings.filterwarnings("ignore")
    out = sys.stdout
    # What models print while they are built is no answer.
    sys.stdout = sys.stderr
    for line in sys.stdin:
        out.write(json.dumps(answer(line)) + "\n")
        out.flush()
    return 0


def answer(line: str) -> dict[str, Any]:
    """Return the answer to one line."""
    from sweeps.errors import UserError
    from sweeps.plugins.bundle import Bundle
    from sweeps.plugins.opened import open_plugins, remember
    from sweeps.spec import RunSpec
    from workers.footprint.folder import require_usable
    from workers.footprint.skeleton import SizeUnknown
    from workers.footprint.trace import size, trace

    request = json.loads(line)
    try:
        run = RunSpec.model_validate_json(request["run"])
        remember(map(Bundle.of_text, request.get("code", ())))
        open_plugins(run, lambda _: None)
        if request.get("only") == "usable":
            require_usable(run)
            return {"usable": True}
        if request.get("only") == "size":
            return {"size": size(run)}
        return {"traced": trace(run).as_record()}
    except UserError as error:
        return {"refused": _short(str(error))}
    except SizeUnknown as error:
        return {"unknown": _short(str(error))}
    except Exception as error:
        return {"unknown": _short(f"its code needs values ({type(error).__name__}: {error})")}


def _short(text: str) -> str:
    return textwrap.shorten(text, LONGEST, placeholder=" …")


if __name__ == "__main__":
    sys.exit(main())
