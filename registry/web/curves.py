"""Curves over steps as inline SVG: one value of one run, or the losses of several. No script, and the ends in words.

Several runs are told apart by letter, dashes and the shape of their marks; colour, from the stylesheet, comes on top.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

_WIDE, _LEFT, _BELOW, _TOP = 640, 64, 22, 10
_TALL, _TALL_OF_MANY = 180, 320
_MARK = 4
LETTERS = "ABCDE"
_SHAPES = (  # around 0 0; one for each letter
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z",
    "M-4-4H4V4H-4Z",
    "M0-5L5 4H-5Z",
    "M0-5.5L5.5 0L0 5.5L-5.5 0Z",
    "M-5-2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z",
)

Point = tuple[int, float]


class Curves(NamedTuple):
    """A run's losses by step, in nats a token; what is not known, or is no number, is left out."""

    training: Sequence[tuple[int, float | None]]
    validation: Sequence[tuple[int, float | None]]


class _Known(NamedTuple):
    training: list[Point]
    validation: list[Point]


class _Plane(NamedTuple):
    """Where a step and a value stand in a picture of this height."""

    tall: int
    first: int
    last: int
    low: float
    high: float

    @property
    def bottom(self) -> int:
        return self.tall - _BELOW

    def at(self, point: Point) -> tuple[float, float]:
        step, value = point
        across = _LEFT + (step - self.first) / max(1, self.last - self.first) * (_WIDE - _LEFT - 2)
        # A constant is a line in the middle; a span too wide for a float is none that a curve could show.
        span = self.high / 2 - self.low / 2
        share = (value / 2 - self.low / 2) / span if self.high > self.low else 0.5
        return across, self.bottom - share * (self.bottom - _TOP)

    def line(self, points: Sequence[Point], kind: str) -> Markup:
        places = " ".join("{:.1f},{:.1f}".format(*self.at(point)) for point in points)
        return Markup('<polyline class="{}" points="{}"/>').format(kind, places)


def line_chart(name: str, points: Sequence[tuple[int, float | None]]) -> Markup | None:
    """A value over steps, with its least and greatest written beside it; None for fewer than two values."""
    known = _known(points)
    if len(known) < 2:
        return None
    plane = _plane(known, _TALL)
    return _picture(plane, f"{name} {_ends(known)}", plane.line(known, "line"))


def loss_chart(runs: Sequence[Curves]) -> Markup | None:
    """The losses of up to five runs, in one plane; None where no run has told of two steps.

    A line is the loss in training, with the run's letter on it; marks are the loss on the validation rows.
    """
    known = [_Known(_known(one.training), _known(one.validation)) for one in runs]
    if not any(len(one.training) > 1 for one in known):
        return None
    plane = _plane([point for one in known for point in (*one.training, *one.validation)], _TALL_OF_MANY)
    lines = [plane.line(one.training, f"line run-{letter}") for letter, one in zip(LETTERS, known, strict=False)]
    marks = [_marks(plane, one.validation, place) for place, one in enumerate(known)]
    letters = [_letter(plane, one.training, place, len(known)) for place, one in enumerate(known)]
    words = "; ".join(_words(letter, one) for letter, one in zip(LETTERS, known, strict=False))
    return _picture(plane, words, Markup("").join([*lines, *marks, *letters]))


def swatch(place: int) -> Markup:
    """How the run at this place is drawn, for a legend that says the same in words."""
    shape = (
        '<svg class="chart swatch" viewBox="0 0 56 16" width="56" height="16" aria-hidden="true">'
        '<polyline class="line run-{letter}" points="1,8 36,8"/>'
        '<path class="mark run-{letter}" transform="translate(47 8)" d="{shape}"/></svg>'
    )
    return Markup(shape).format(letter=LETTERS[place], shape=_SHAPES[place])


def _known(points: Sequence[tuple[int, float | None]]) -> list[Point]:
    return [(step, value) for step, value in points if value is not None and math.isfinite(value)]


def _plane(points: Sequence[Point], tall: int) -> _Plane:
    steps, values = [step for step, _ in points], [value for _, value in points]
    return _Plane(tall, min(steps), max(steps), min(values), max(values))


def _ends(points: Sequence[Point]) -> str:
    (first, begin), (last, end) = points[0], points[-1]
    return f"from {begin:.4g} at step {first} to {end:.4g} at step {last}"


def _words(letter: str, run: _Known) -> str:
    told = [f"{name} {_ends(points)}" for name, points in zip(("loss", "validation loss"), run, strict=True) if points]
    return f"{letter}: {', '.join(told) or 'nothing told'}"


def _marks(plane: _Plane, points: Sequence[Point], place: int) -> Markup:
    mark = Markup('<path class="mark run-{}" transform="translate({:.1f} {:.1f})" d="{}"/>')
    return Markup("").join(mark.format(LETTERS[place], *plane.at(point), _SHAPES[place]) for point in points)


def _letter(plane: _Plane, points: Sequence[Point], place: int, of: int) -> Markup:
    """On the run's own line, each run's at another share of its steps: lines that meet keep letters apart."""
    if not points:
        return Markup("")
    across, down = plane.at(points[(len(points) - 1) * (place + 1) // (of + 1)])
    text = Markup('<text class="letter run-{0}" x="{1:.1f}" y="{2:.1f}">{0}</text>')
    return text.format(LETTERS[place], across, min(max(down + _MARK, 2 * _TOP), plane.bottom - _MARK))


def _picture(plane: _Plane, words: str, inner: Markup) -> Markup:
    shape = (
        '<svg class="chart curve" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}" role="img" '
        'aria-label="{words}"><path class="scale" d="M{left} 10V{bottom}H{wide}"/>'
        '<text class="tick end" x="{beside}" y="16">{high}</text>'
        '<text class="tick end" x="{beside}" y="{bottom}">{low}</text>'
        '<text class="tick start" x="{left}" y="{tall}">step {first}</text>'
        '<text class="tick end" x="{wide}" y="{tall}">{last}</text>{inner}</svg>'
    )
    return Markup(shape).format(
        wide=_WIDE,
        tall=plane.tall,
        words=words,
        left=_LEFT,
        bottom=plane.bottom,
        beside=_LEFT - 6,
        high=f"{plane.high:.3g}",
        low=f"{plane.low:.3g}",
        first=plane.first,
        last=plane.last,
        inner=inner,
    )
