"""GET /schema/openapi.json: what Litestar derives from the handlers, with what it cannot know: errors and tokens."""

import copy
from typing import Any

from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

_PROBLEM = {
    "title": "Problem",
    "description": "RFC 9457. `code` is stable; `detail` gives value, reason and remedy.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "problems": {"type": "array", "items": {"type": "string"}},
    },
}
_REFUSED = {
    "description": "Refused, or failed: a problem.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_BEARER = {"type": "http", "scheme": "bearer", "description": "A token, made by `tunegate token create`."}
_METHODS = ("get", "head", "put", "post", "delete", "patch", "options")


class SchemaPlugin(JsonRenderPlugin):
    """Renders the completed schema."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, completed(openapi_schema))


def completed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with bearer tokens, and a problem as every operation's default answer."""
    found = copy.deepcopy(schema)
    components = found.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    components["securitySchemes"] = {"bearer": _BEARER}
    found["security"] = [{"bearer": []}]
    for operations in found.get("paths", {}).values():
        for method in _METHODS:
            if method in operations:
                # Litestar declares a 400 of a shape that no handler here answers with.
                operations[method].setdefault("responses", {}).pop("400", None)
                operations[method]["responses"]["default"] = _REFUSED
    return found
