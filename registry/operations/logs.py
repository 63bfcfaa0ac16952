"""Log lines: one JSON object or one plain line each, without bodies, tokens or query strings.

What a request may say of itself is its method, path, status, time and the id of its token. Control characters are
escaped in both forms, so that no text of a stranger's begins a line of its own.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import IO, Any

_SECRET = re.compile(r"(tg(?:_|%5F)[a-z]{1,20}(?:_|%5F)[0-9a-f]{12}(?:_|%5F))[0-9a-f]{20,}", re.ASCII | re.IGNORECASE)
# Attributes of a LogRecord that are named in a line of their own if a caller gave them through `extra=`.
FIELDS = ("method", "path", "status", "milliseconds", "token", "request")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields above, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, getattr(record, name)) for name in FIELDS if getattr(record, name, None) is not None)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _masked(json.dumps(line, default=str))


class PlainLines(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(
            f" {name}={_inert(str(getattr(record, name)))}"
            for name in FIELDS
            if getattr(record, name, None) is not None
        )
        text = f"{_moment(record)} {record.levelname} {_inert(record.getMessage())}{fields}"
        return _masked(f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text)


def configure(form: str, stream: IO[str] | None = None) -> None:
    """Send everything of level INFO and above to a stream (default: stderr) as `json` or `text` lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else PlainLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Their INFO lines would name every address that is asked.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _inert(text: str) -> str:
    """
    >>> _inert("a\\nb\\x1b[31m")
    'a\\\\nb\\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _masked(line: str) -> str:
    """A line without the secrets of tokens, which people paste into paths; their ids stay.

    >>> _masked("/v1/tokens/tg_ci_0123456789ab_" + "0" * 64)
    '/v1/tokens/tg_ci_0123456789ab_…'
    """
    return _SECRET.sub(r"\1…", line)
