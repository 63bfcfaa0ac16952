"""Opaque keyset cursors: where the next page begins, not how many rows to skip."""

import base64
import binascii

from registry.errors import InvalidRequest

_FOREIGN = "the cursor is not one of ours; begin without one"
_MOST_DIGITS = 10


def write_cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> str:
    """The key a cursor holds; the empty string for the first page.

    >>> read_cursor(write_cursor("support-bot"))
    'support-bot'
    """
    if not cursor:
        return ""
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        raise InvalidRequest(_FOREIGN) from None


def read_number(cursor: str | None) -> int | None:
    """The number a cursor holds; None for the first page.

    >>> read_number(write_cursor("7"))
    7
    """
    key = read_cursor(cursor)
    if not key:
        return None
    if not (key.isascii() and key.isdigit() and len(key) <= _MOST_DIGITS):
        raise InvalidRequest(_FOREIGN)
    return int(key)
