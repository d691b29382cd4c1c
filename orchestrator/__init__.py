"""How many runs are carried out. The Python API: ``run_sweep``, ``resume``, ``submit``, ``status``,
see ``orchestrator.studies``; imported when it is asked for, since commands start in a moment."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.studies import resume, run_sweep, status, submit

__all__ = ["resume", "run_sweep", "status", "submit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    from orchestrator import studies

    return getattr(studies, name)
