"""Charts: the numbers that go in are those that are drawn and told, and nothing else gets in."""

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from registry.web.charts import histogram, interval

scores = st.floats(1, 5, allow_nan=False)
counts = st.lists(st.integers(0, 10_000), min_size=5, max_size=5)


def attributes(chart: str, kind: str) -> list[dict[str, str]]:
    return [dict(one.attrib) for one in ElementTree.fromstring(chart).iter() if one.get("class") == kind]


@given(counts)
def test_bars_are_as_high_as_their_share_of_the_most_frequent(given_counts: list[int]) -> None:
    chart = histogram(given_counts)
    bars, most = attributes(chart, "bar"), max(*given_counts, 1)
    assert len(bars) == 5 and len({bar["x"] for bar in bars}) == 5
    for bar, count in zip(bars, given_counts, strict=True):
        height = int(bar["height"])
        assert abs(height - 40 * count / most) <= 1 and (height > 0) == (count > 0)
        assert int(bar["y"]) + height == 54, "all stand on one line"
    told = [int(one) for one in re.findall(r"score \d: (\d+)", chart)]
    assert told == given_counts


def test_a_chart_of_nothing_is_a_chart() -> None:
    assert [bar["height"] for bar in attributes(histogram([0] * 5), "bar")] == ["0"] * 5


@given(st.tuples(scores, scores, scores).map(sorted), scores)
def test_a_mean_stands_between_its_bounds_on_the_scale(ordered: list[float], needed: float) -> None:
    lower, mean, upper = ordered
    chart = interval(mean, lower, upper, needed)
    (dot,), (line,) = attributes(chart, "mean"), attributes(chart, "bounds")
    left, right = (float(one) for one in re.findall(r"M([\d.]+) 14", line["d"]))
    assert 10 <= left <= float(dot["cx"]) <= right <= 210
    (bar,) = attributes(chart, "needed")
    assert bar["x1"] == bar["x2"] and (mean < needed) == (mean - needed < 0)
    assert mean == needed or (float(dot["cx"]) <= float(bar["x1"])) or mean > needed
    assert f"mean {mean:.2f}, from {lower:.2f} to {upper:.2f}; {needed:g} is needed" in chart


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_bounds_beyond_the_scale_are_drawn_at_its_ends(lower: float, upper: float) -> None:
    (line,) = attributes(interval(3.0, lower, upper, 4.0), "bounds")
    assert all(10 <= float(one) <= 210 for one in re.findall(r"[MH]([\d.]+)", line["d"]))


def test_without_bounds_only_the_mean_is_drawn() -> None:
    chart = interval(4.5, None, None, 4.0)
    assert not attributes(chart, "bounds") and "from" not in chart and "mean 4.50; 4 is needed" in chart
