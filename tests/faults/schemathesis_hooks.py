"""What schemathesis is told of us: who may call what, and the shape that every answer keeps.

TUNEGATE_TOKENS is JSON: a token by `METHOD path`.
"""

import json
import os
from typing import Any

import schemathesis

_TOKENS: dict[str, str] = json.loads(os.environ.get("TUNEGATE_TOKENS", "{}"))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    token = _TOKENS.get(f"{case.method.upper()} {case.path}")
    if token is not None:
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.check
def errors_have_one_shape(context: Any, response: Any, case: Any) -> None:
    """Errors are problem+json, and show nothing of the inside."""
    if response.status_code < 400 or case.method.upper() == "HEAD":
        return
    assert response.headers["content-type"] == ["application/problem+json"], response.headers
    found = response.json()
    assert found.keys() >= {"type", "title", "status", "detail", "code"}, found
    assert found["status"] == response.status_code and found["type"].endswith("/" + found["code"]), found
    for inside in ("Traceback", '.py"', "duckdb", "msgspec", "litestar"):
        assert inside not in response.text, found
