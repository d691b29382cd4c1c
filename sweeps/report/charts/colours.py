"""The colours of a report: one meaning each, light and dark, told apart without red and green.

Controls have hues, findings have others, states of knowledge are grey. Nothing else has a hue: a
model is a place on the page, an objective a column or a shape, a status a word. Distances and
contrasts are computed in ``tests/sweeps/report/test_colours.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sweeps.findings.verdicts import FINDINGS, VERDICTS
from sweeps.report.tables.comparisons import NO_FINDING

# What charts stand on.
CARDS = {"light": "#ffffff", "dark": "#1c2027"}
# Of arms, standard training first. Further ones are told apart by their dash, too.
ARMS = {
    "light": ["#1d2129", "#c07818", "#4890f0", "#a830a8"],
    "dark": ["#f2f4f7", "#a87818", "#60a8d8", "#f03090"],
}
_FOUND = {
    "persists": {"light": "#000090", "dark": "#4878f0", "strong": "#000090"},
    "collapses": {"light": "#900000", "dark": "#f07878", "strong": "#900000"},
    "reverses": {"light": "#306048", "dark": "#60f078", "strong": "#306048"},
}
_STAYED_OPEN = {"light": "#5a6470", "dark": "#b4bcc6", "strong": "#4a5460"}
_NOTHING = {"light": "#8a949f", "dark": "#78828f", "strong": "#66707c"}
# What white text stands on in both themes.
STRONG = "strong"


def arm_colours(arms: Sequence[str], theme: str) -> dict[str, str]:
    """Return the colour of each arm."""
    own = ARMS[theme]
    return {arm: own[k % len(own)] for k, arm in enumerate(arms)}


def verdict_colours(theme: str) -> dict[str, str]:
    """Return the colour of each verdict, and of what is no finding; ``strong`` under white text."""
    neutral = [NO_FINDING, *(one for one in VERDICTS if one not in FINDINGS)]
    return {
        **{name: _FOUND[name][theme] for name in FINDINGS},
        **{name: (_STAYED_OPEN if name == "inconclusive" else _NOTHING)[theme] for name in neutral},
    }


def page_colours(arms: Sequence[str]) -> dict[str, Any]:
    """Return the colours by field of a chart and theme, as a page takes them."""
    return {
        "arm": {theme: arm_colours(arms, theme) for theme in ARMS},
        "verdict": {theme: verdict_colours(theme) for theme in (*ARMS, STRONG)},
    }
