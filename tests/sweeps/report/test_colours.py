"""Colours of a report: one meaning each, and told apart by eyes that lack a kind of cone.

Distances are CIEDE2000 (Sharma, Wu and Dalal 2005), of colours as they are and as protanopes and
deuteranopes see them (Machado, Oliveira and Fernandes 2009, severity 1). Below about 2 two patches
side by side look alike; legends and small marks need several times that.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeps.findings.verdicts import FINDINGS, VERDICTS
from sweeps.report.charts.colours import (
    ARMS,
    CARDS,
    STRONG,
    arm_colours,
    page_colours,
    verdict_colours,
)

Vector = NDArray[np.float64]
EYES = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}
_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
LEAST_DISTANCE, LEAST_CONTRAST, LEAST_CONTRAST_OF_TEXT = 10.0, 3.0, 4.5


def linear(colour: str) -> Vector:
    parts = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(light: Vector) -> Vector:
    x = _XYZ @ np.clip(light, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(one: Vector, other: Vector) -> float:
    """Return CIEDE2000 of two colours in L*a*b*."""
    chroma = (np.hypot(*one[1:]) + np.hypot(*other[1:])) / 2
    g = 0.5 * (1 - np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))
    (l1, a1, b1), (l2, a2, b2) = ((x[0], x[1] * (1 + g), x[2]) for x in (one, other))
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    grey = c1 * c2 == 0
    turn = 0.0 if grey else (h2 - h1 + 180) % 360 - 180
    dl, dc, dh = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    lm, cm, hm = (l1 + l2) / 2, (c1 + c2) / 2, h1 + h2 if grey else (h1 + turn / 2) % 360
    t = (
        1
        - 0.17 * np.cos(np.radians(hm - 30))
        + 0.24 * np.cos(np.radians(2 * hm))
        + 0.32 * np.cos(np.radians(3 * hm + 6))
        - 0.20 * np.cos(np.radians(4 * hm - 63))
    )
    sl = 1 + 0.015 * (lm - 50) ** 2 / np.sqrt(20 + (lm - 50) ** 2)
    sc, sh = 1 + 0.045 * cm, 1 + 0.015 * cm * t
    rt = -2 * np.sqrt(cm**7 / (cm**7 + 25.0**7))
    rt *= np.sin(np.radians(60 * np.exp(-(((hm - 275) / 25) ** 2))))
    parts = (dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + rt * dc / sc * dh / sh
    return float(np.sqrt(parts))


def contrast(one: str, other: str) -> float:
    """Return the contrast of WCAG 2, from 1 to 21."""
    light = sorted(float(_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def meanings(theme: str) -> dict[str, str]:
    """Return every colour of a theme by what it means."""
    arms = {f"arm {k}": colour for k, colour in enumerate(ARMS[theme])}
    verdicts = verdict_colours(theme)
    return {**arms, **{name: verdicts[name] for name in (*FINDINGS, "inconclusive", "idle")}}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # Of the test data published with the formula.
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, -1.0, 2.0), (50.0, 0.0, 0.0), 2.3669),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
        ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ],
)
def test_the_distance_is_that_of_its_test_data(
    one: tuple[float, ...], other: tuple[float, ...], expected: float
) -> None:
    assert distance(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("eyes", sorted(EYES))
def test_no_two_meanings_look_alike(theme: str, eyes: str) -> None:
    seen = {name: lab(EYES[eyes] @ linear(one)) for name, one in meanings(theme).items()}
    pairs = {(a, b): distance(seen[a], seen[b]) for a, b in itertools.combinations(sorted(seen), 2)}
    nearest = min(pairs, key=lambda pair: pairs[pair])
    print(f"{theme}, {eyes}: {nearest[0]} and {nearest[1]} are {pairs[nearest]:.1f} apart")
    assert pairs[nearest] > LEAST_DISTANCE


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_stand_out_from_the_card(theme: str) -> None:
    found = {name: contrast(one, CARDS[theme]) for name, one in meanings(theme).items()}
    assert min(found.values()) > LEAST_CONTRAST, found


def test_white_text_is_read_on_every_verdict() -> None:
    found = {name: contrast(one, "#ffffff") for name, one in verdict_colours(STRONG).items()}
    assert set(VERDICTS) < set(found)
    assert min(found.values()) > LEAST_CONTRAST_OF_TEXT, found


def test_states_of_knowledge_are_grey_and_findings_are_not() -> None:
    for theme in ("light", "dark", STRONG):
        for name, colour in verdict_colours(theme).items():
            parts = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
            assert (max(parts) - min(parts) < 30) == (name not in FINDINGS), (theme, name)


def test_a_page_gives_every_arm_the_colour_of_its_place() -> None:
    arms = ["standard", "equal_step", "layer_clip · max_norm 0.1", "soft", "fifth"]
    hues = page_colours(arms)["arm"]["light"]
    assert list(hues) == arms
    assert len(set(hues.values())) == len(ARMS["light"])
    assert hues["fifth"] == hues["standard"]
    assert arm_colours(arms, "dark") == page_colours(arms)["arm"]["dark"]
