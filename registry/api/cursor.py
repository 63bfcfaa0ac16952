"""Opaque keyset cursors: where the next page begins, not how many rows to skip."""

import base64
import binascii

from registry.errors import InvalidRequest


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
        raise InvalidRequest("the cursor is not one of ours; begin without one") from None
