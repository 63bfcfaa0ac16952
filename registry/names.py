"""Names and references: parsed once at the edge, passed on as narrow types.

>>> parse_reference("team/support-bot@approved")
Reference(adapter='team/support-bot', number=None, alias='approved', digest=None)
>>> parse_reference("support-bot/7").number
7
>>> parse_reference("support-bot@latest").alias     # `latest` always means latest *approved*
'approved'
"""

import hashlib
import json
import re
from json.encoder import encode_basestring
from typing import Any, NamedTuple

import rfc8785

from registry.errors import InvalidRequest

_SEGMENT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ALIAS = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)

# Words that are path segments or meanings of our own, and device names that break checkouts on some file systems.
RESERVED = frozenset(
    "latest approved schema health healthz readyz metrics versions aliases policy adapters blobs jobs audit review "
    "resolve tokens suites keys trainings campaign gate items complete promote rollback revoke history "
    "con prn aux nul".split()
)


_PLAIN = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
# Three, and each from a character that is quick to look for: signatures are long texts, and one pattern for all of this
# took ten times as long.
_NOT_CANONICAL = (
    re.compile(r"e(?<=[0-9]e)[+-][0-9]", re.ASCII),
    re.compile(r"\.(?<=[0-9]\.)0(?![0-9\"])", re.ASCII),
    re.compile(r"[:,\[]-?[0-9]{16}", re.ASCII),
)


class Reference(NamedTuple):
    """One version of an adapter, named by exactly one of number, alias or manifest digest."""

    adapter: str
    number: int | None = None
    alias: str | None = None
    digest: str | None = None


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """`sha256:<hex>` over the canonical (RFC 8785) JSON of a plain value.

    >>> digest_of({"b": 1, "a": [2.0]}) == digest_of({"a": [2], "b": 1})
    True
    """
    return "sha256:" + sha256_hex(canonical(value))


def canonical(value: Any) -> bytes:
    """The RFC 8785 bytes of a plain value whose keys are text, as `rfc8785.dumps` gives them, but in less time.

    The standard encoder differs in the order of keys beyond ASCII, in floats that are whole or have an exponent, and in
    what it lets pass. Where its text could hold any of these, it is not used.

    >>> canonical({"b": 1, "a": [2.0, "\\n"]})
    b'{"a":[2,"\\\\n"],"b":1}'
    """
    try:
        text = _PLAIN.encode(value)
    except (TypeError, ValueError):
        return _text(value).encode()
    if text[0] in '{["' and text.isascii() and not any(pattern.search(text) for pattern in _NOT_CANONICAL):
        return text.encode()
    return _text(value).encode()


def _text(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return encode_basestring(value)
    if kind is dict:
        # By UTF-16 code units, which differs from the order of characters only beyond ASCII.
        keys = sorted(value) if "".join(value).isascii() else sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join([f"{encode_basestring(key)}:{_text(value[key])}" for key in keys]) + "}"
    if kind is list:
        return "[" + ",".join([_text(one) for one in value]) + "]"
    if kind is int and abs(value) < 2**53:
        return str(value)
    # Without an exponent, Python's text of a float is the RFC's.
    if kind is float and value and (text := repr(value)).strip("-.0123456789") == "":
        return text.removesuffix(".0")
    return rfc8785.dumps(value).decode()


def check_adapter_name(name: str) -> str:
    """The name itself if it may be registered.

    Raises InvalidRequest for anything but one or two lower-case segments, for reserved words, and for a last segment
    of digits only (`team/7` would read as version 7 of `team`).
    """
    segments = name.split("/")
    if len(segments) > 2 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise InvalidRequest(
            f"adapter name {name!r} is not of the form 'support-bot' or 'team/support-bot' "
            "(lower-case letters, digits and inner hyphens, at most 63 a segment); choose such a name"
        )
    if taken := RESERVED.intersection(segments):
        raise InvalidRequest(f"adapter name {name!r} uses the reserved word {sorted(taken)[0]!r}; choose another name")
    if segments[-1].isdigit():
        raise InvalidRequest(f"adapter name {name!r} ends in digits only and would read as a version; add a letter")
    return name


def project_of(adapter: str) -> str:
    """The project of an adapter, or of the scope of a token: its namespace, or itself where it has none.

    >>> project_of("team/support-bot"), project_of("support-bot")
    ('team', 'support-bot')
    """
    return adapter.partition("/")[0]


def check_alias(alias: str) -> str:
    """The alias itself if it may be written: `latest` is only ever read."""
    if not _ALIAS.fullmatch(alias) or alias == "latest":
        raise InvalidRequest(
            f"alias {alias!r} cannot be written; use 'approved' or another lower-case word such as 'canary'"
        )
    return alias


def check_digest(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidRequest(f"digest {digest!r} is not 'sha256:' and 64 lower-case hex digits")
    return digest


def check_hex(sha256: str) -> str:
    if not _HEX.fullmatch(sha256):
        raise InvalidRequest(f"sha256 {sha256!r} is not 64 lower-case hex digits")
    return sha256


def parse_reference(text: str) -> Reference:
    """Read `name/7`, `name@alias` or `name@sha256:<hex>`; a bare name means `name@approved`."""
    name, at, target = text.partition("@")
    if at and target.startswith("sha256:"):
        return Reference(check_adapter_name(name), digest=check_digest(target))
    if at:
        alias = "approved" if target == "latest" else target
        return Reference(check_adapter_name(name), alias=check_alias(alias))
    head, slash, tail = name.rpartition("/")
    if slash and tail.isascii() and tail.isdigit() and len(tail) <= 9 and tail[0] != "0":
        return Reference(check_adapter_name(head), number=int(tail))
    return Reference(check_adapter_name(name), alias="approved")
