"""Which bytes a request brings or wants, from its headers. Pure."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from registry.errors import InvalidRequest, RangeRefused

_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class Piece(NamedTuple):
    """The part of a blob that one request brings: from `offset`, `size` bytes where known, of `total`."""

    offset: int
    size: int | None
    total: int | None


class Span(NamedTuple):
    """The bytes of a blob that one request wants, both ends included."""

    first: int
    last: int


def read_piece(headers: Mapping[str, str]) -> Piece:
    """What an upload announces.

    Raises InvalidRequest for lengths and ranges that make no sense, and for a body that is not the bytes themselves.

    >>> read_piece({"Content-Length": "10", "Content-Range": "bytes 90-99/100"})
    Piece(offset=90, size=10, total=100)
    """
    if headers.get("Content-Encoding", "identity") != "identity":
        raise InvalidRequest("upload the bytes as they are, without Content-Encoding")
    length = headers.get("Content-Length")
    if length is not None and not _LENGTH.fullmatch(length):
        raise InvalidRequest(f"Content-Length {length[:60]!r} is no number of bytes")
    size = int(length) if length is not None else None
    header = headers.get("Content-Range")
    if header is None:
        return Piece(0, size, size)
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise InvalidRequest(f"Content-Range {header[:60]!r} is not of the form 'bytes 0-99/1000'")
    first, last, total = (int(number) for number in match.groups())
    if not first <= last < total:
        raise InvalidRequest(f"Content-Range {header!r} is not a range within {total} bytes")
    if size is not None and size != last - first + 1:
        raise InvalidRequest(f"Content-Range {header!r} is not as long as the {size} bytes of the body")
    return Piece(first, last - first + 1, total)


def wanted_span(headers: Mapping[str, str], size: int, etag: str) -> Span | None:
    """The range that is wanted, or None for the whole. Several ranges at once are answered with the whole.

    Raises RangeRefused for a range outside the blob's `size` bytes.

    >>> wanted_span({"Range": "bytes=-5"}, 100, '"x"')
    Span(first=95, last=99)
    """
    header = headers.get("Range")
    if header is None or headers.get("If-Range", etag) != etag:
        return None
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        span, satisfiable = Span(max(0, size - int(last)), size - 1), int(last) > 0 and size > 0
    else:
        span = Span(int(first), min(int(last), size - 1) if last else size - 1)
        satisfiable = span.first < size and (not last or int(last) >= span.first)
    if not satisfiable:
        raise RangeRefused(f"range {header!r} lies outside the blob's {size} bytes", size=size)
    return span


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has what the ETag names already (RFC 9110, 13.1.2: a list, weak comparison, or `*`).

    >>> is_known('"other", W/"x"', '"x"'), is_known("*", '"x"'), is_known(None, '"x"')
    (True, True, False)
    """
    if if_none_match is None:
        return False
    return any(one.strip().removeprefix("W/") in ("*", etag) for one in if_none_match.split(","))
