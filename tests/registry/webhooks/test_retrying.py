"""What follows from an attempt: 2xx is done, 410 ends the webhook, and everything else ends in bounded time."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.webhooks.retrying import STANDARD, Attempt, Next, judge, retry_after_seconds

STATUSES = st.one_of(st.none(), st.integers(100, 599))
CHANCES = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(status: int) -> None:
    assert judge(Attempt(status), 1, STANDARD, 0.5) == Next("delivered")


def test_410_fails_and_disables() -> None:
    assert judge(Attempt(410), 1, STANDARD, 0.5) == Next("failed", disable=True)


@pytest.mark.parametrize("status", [None, 408, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_tried_for_about_a_day(status: int | None) -> None:
    waits, attempts = 0.0, 1
    while (following := judge(Attempt(status), attempts, STANDARD, 0.5)).wait_seconds is not None:
        waits, attempts = waits + following.wait_seconds, attempts + 1
    assert (following.state, attempts) == ("failed", len(STANDARD.waits) + 1)
    assert 20 * 3600 < waits < 30 * 3600


@pytest.mark.parametrize("status", [100, 301, 302, 307, 308, 400, 401, 403, 404, 405, 409, 422, 451])
def test_what_is_refused_or_redirected_is_tried_a_few_times(status: int) -> None:
    states = [judge(Attempt(status), attempts, STANDARD, 0.5).state for attempts in range(1, STANDARD.refused + 1)]
    assert states == ["pending"] * (STANDARD.refused - 1) + ["failed"]


@given(STATUSES, st.integers(1, 50), CHANCES, st.one_of(st.none(), st.floats(0, 1e9)))
def test_every_delivery_ends_and_no_wait_is_negative_or_beyond_ten_hours(
    status: int | None, attempts: int, chance: float, retry_after: float | None
) -> None:
    found = judge(Attempt(status, None, retry_after), attempts, STANDARD, chance)
    assert (found.state == "pending") == (found.wait_seconds is not None)
    assert found.wait_seconds is None or 0 < found.wait_seconds <= 10 * 3600
    if attempts > len(STANDARD.waits):
        assert found.state != "pending"
    assert found.disable == (status == 410)


@given(CHANCES)
def test_waits_are_spread_by_a_quarter(chance: float) -> None:
    wait = judge(Attempt(500), 4, STANDARD, chance).wait_seconds
    assert wait is not None and 6 <= wait <= 10


def test_retry_after_is_honoured_up_to_an_hour() -> None:
    waits = [judge(Attempt(429, None, seconds), 1, STANDARD, 0.5).wait_seconds for seconds in (None, 0.1, 120.0, 1e6)]
    assert waits == [1.0, 1.0, 120.0, 3600.0]


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    now = 1_700_000_000.0
    in_a_minute = format_datetime(datetime.fromtimestamp(now + 60, UTC), usegmt=True)
    assert retry_after_seconds("7", now) == 7.0
    assert retry_after_seconds(in_a_minute, now) == 60.0
    assert retry_after_seconds("Thu, 01 Jan 1970 00:00:00 GMT", now) == 0.0
    assert retry_after_seconds("Tue, 14 Nov 2023 22:14:20", now) == 60.0


@pytest.mark.parametrize("header", [None, "", "soon", "-1", "1.5", "٣", "9" * 5000, "Thu, 99 Jan 1970 99:99:99 GMT"])
def test_a_retry_after_that_says_nothing_is_none_or_bounded(header: str | None) -> None:
    found = retry_after_seconds(header, 0.0)
    assert found is None or judge(Attempt(503, None, found), 1, STANDARD, 0.5).wait_seconds == 3600.0


@given(st.text(max_size=60))
def test_no_retry_after_raises(header: str) -> None:
    found = retry_after_seconds(header, 1e9)
    assert found is None or found >= 0
