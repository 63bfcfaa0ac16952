"""Messages between the evaluator and its engine's process: msgpack, each behind its length in four bytes."""

import io
from typing import IO, Any, Protocol

import msgspec

_MOST_BYTES = 256 * 1024**2


class Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


def write_frame(stream: IO[bytes] | io.BufferedWriter, message: Any) -> None:
    data = msgspec.msgpack.encode(message)
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def read_frame(stream: Readable) -> Any:
    """The next message; raises EOFError if the other side is gone, or speaks of something else."""
    length = int.from_bytes(_exactly(stream, 4), "big")
    if length > _MOST_BYTES:
        raise EOFError(f"a message of {length} bytes is not one of ours")
    try:
        return msgspec.msgpack.decode(_exactly(stream, length))
    except msgspec.DecodeError as error:
        raise EOFError(f"a message of {length} bytes is not one of ours: {error}") from None


def _exactly(stream: Readable, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise EOFError("the other side closed the connection")
        data += more
    return data
