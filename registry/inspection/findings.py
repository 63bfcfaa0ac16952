"""How the static check words what it found: a stable code, a severity, and value, reason and remedy in one line."""

from typing import Any

from registry.records import Finding


def error(code: str, message: str) -> Finding:
    """What keeps the adapter from being served as it was trained."""
    return Finding(code=code, severity="error", message=message)


def warning(code: str, message: str) -> Finding:
    """What somebody should know, and nothing more."""
    return Finding(code=code, severity="warning", message=message)


def short(value: Any) -> str:
    """A stranger's value as text, for a message: never the whole of it, and no control characters."""
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
