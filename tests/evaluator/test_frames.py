"""Messages between evaluator and engine, over a real pipe."""

import io
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.frames import read_frame, write_frame

messages = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(messages, max_size=5))
def test_messages_arrive_whole_and_in_order(sent: list[Any]) -> None:
    stream = io.BytesIO()
    for message in sent:
        write_frame(stream, message)
    stream.seek(0)
    assert [read_frame(stream) for _ in sent] == sent
    with pytest.raises(EOFError):
        read_frame(stream)


class Dripping(io.RawIOBase):
    """Gives one byte at a time, as a pipe may."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(1, size))


def frame(message: Any) -> bytes:
    stream = io.BytesIO()
    write_frame(stream, message)
    return stream.getvalue()


def test_a_slow_pipe_changes_nothing() -> None:
    assert read_frame(Dripping(frame({"index": 1, "result": [0.5] * 50}))) == {"index": 1, "result": [0.5] * 50}


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 5, 9])
def test_a_writer_that_dies_in_the_middle_is_an_end_not_a_message(kept: int) -> None:
    with pytest.raises(EOFError):
        read_frame(io.BytesIO(frame({"index": 1, "result": "text"})[:kept]))


def test_a_length_that_nobody_sends_is_not_waited_for() -> None:
    with pytest.raises(EOFError, match="not one of ours"):
        read_frame(io.BytesIO(b"\xff\xff\xff\xff"))


def test_the_end_of_a_real_pipe_is_seen() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as inlet:
        with os.fdopen(writing, "wb") as outlet:
            write_frame(outlet, {"done": True})
        assert read_frame(inlet) == {"done": True}
        with pytest.raises(EOFError):
            read_frame(inlet)
