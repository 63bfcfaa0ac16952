"""Small charts as inline SVG: no script, no style of their own, and the same numbers as text for who cannot see them.

Colours come from the stylesheet by class. Whatever goes in is a number, so nothing in a chart can be markup.
"""

from collections.abc import Sequence

from markupsafe import Markup

_BAR, _STEP, _TALL, _TOP = 22, 28, 40, 14
_WIDE, _MARGIN, _LOWEST, _HIGHEST = 220, 10, 1.0, 5.0


def histogram(counts: Sequence[int]) -> Markup:
    """How often each score from 1 up was given: a bar each, as high as its share of the most frequent."""
    most = max([*counts, 1])
    bars = Markup("").join(
        Markup(
            '<rect class="bar" x="{x}" y="{y}" width="{wide}" height="{tall}"/>'
            '<text class="count" x="{middle}" y="{above}">{count}</text>'
            '<text class="tick" x="{middle}" y="{below}">{score}</text>'
        ).format(
            x=position * _STEP,
            y=_TOP + _TALL - _height(count, most),
            wide=_BAR,
            tall=_height(count, most),
            middle=position * _STEP + _BAR // 2,
            above=_TOP + _TALL - _height(count, most) - 3,
            below=_TOP + _TALL + 14,
            count=count,
            score=position + 1,
        )
        for position, count in enumerate(counts)
    )
    words = ", ".join(f"score {position + 1}: {count}" for position, count in enumerate(counts))
    return _picture("histogram", (len(counts) - 1) * _STEP + _BAR, _TOP + _TALL + 18, words, bars)


def interval(mean: float, lower: float | None, upper: float | None, needed: float) -> Markup:
    """A mean with its bounds on the scale from 1 to 5, and the mean that is needed as a line across."""
    parts = [
        Markup('<line class="scale" x1="{}" y1="20" x2="{}" y2="20"/>').format(_x(_LOWEST), _x(_HIGHEST)),
        *(
            Markup('<text class="tick" x="{}" y="38">{}</text>').format(_x(score), score)
            for score in range(int(_LOWEST), int(_HIGHEST) + 1)
        ),
        Markup('<line class="needed" x1="{0}" y1="6" x2="{0}" y2="28"/>').format(_x(needed)),
    ]
    if lower is not None and upper is not None:
        ends = Markup('<path class="bounds" d="M{0} 14v12M{0} 20H{1}M{1} 14v12"/>')
        parts.append(ends.format(_x(lower), _x(upper)))
    parts.append(Markup('<circle class="mean" cx="{}" cy="20" r="3.5"/>').format(_x(mean)))
    bounds = f", from {lower:.2f} to {upper:.2f}" if lower is not None and upper is not None else ""
    words = f"mean {mean:.2f}{bounds}; {needed:g} is needed"
    return _picture("interval", _WIDE, 42, words, Markup("").join(parts))


def _picture(kind: str, wide: int, tall: int, words: str, inner: Markup) -> Markup:
    shape = '<svg class="chart {}" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">{}</svg>'
    return Markup(shape).format(kind, wide, tall, wide, tall, words, inner)


def _height(count: int, most: int) -> int:
    """In whole units; something that happened is never invisible."""
    return max(round(_TALL * count / most), 1) if count else 0


def _x(score: float) -> float:
    """Where a score stands; bounds beyond the scale are drawn at its ends."""
    inside = min(max(score, _LOWEST), _HIGHEST)
    return round(_MARGIN + (inside - _LOWEST) / (_HIGHEST - _LOWEST) * (_WIDE - 2 * _MARGIN), 1)
