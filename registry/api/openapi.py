"""GET /schema/openapi.json: what Litestar derives from the handlers, with what it cannot know.

That is errors, tokens, and which statuses a call succeeds with: a command decides that, after its handler has returned.
A test compares what is declared here with what the routes answer.
"""

import copy
from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.openapi.plugins import JsonRenderPlugin

from registry.api.problems import problem

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
_VERSION = "/v1/adapters/{name}/versions/{number}"
_ALIAS = "/v1/adapters/{name}/aliases/{alias}"
# Where it is not 200 for GET, HEAD and PUT, 201 for POST. A name with a namespace before it answers like one without.
SUCCESSES: dict[str, tuple[int, ...]] = {
    "POST /v1/suites": (200, 201),
    "GET /v1/resolve": (200, 304),
    "POST /v1/adapters/{name}/versions": (200, 201),
    f"POST {_VERSION}/complete": (200,),
    f"POST {_VERSION}/campaign": (200,),
    f"POST {_VERSION}/promote": (200, 202),
    f"POST {_VERSION}/countersign": (200,),
    f"POST {_VERSION}/reject": (200,),
    f"POST {_VERSION}/revoke": (200,),
    f"GET {_ALIAS}": (200, 304),
    f"POST {_ALIAS}/rollback": (200, 202),
    "PUT /v1/blobs/{digest}": (200, 201, 202),
    "GET /v1/blobs/{digest}": (200, 206, 304),
    "HEAD /v1/blobs/{digest}": (200, 206, 304),
    "POST /v1/jobs/claim": (200, 204),
    "POST /v1/jobs/{job_id}/heartbeat": (200,),
    "POST /v1/jobs/{job_id}/evidence": (200,),
    "POST /v1/jobs/{job_id}/fail": (200,),
    "POST /v1/jobs/{job_id}/progress": (200,),
    "POST /v1/jobs/{job_id}/finish": (200,),
    "POST /v1/trainings": (200, 201),
    "GET /v1/review/next": (200, 204),
    "POST /v1/review/assignments/{assignment}/rating": (200,),
    "POST /v1/review/assignments/{assignment}/skip": (200,),
    "DELETE /v1/reviewers/{record_id}": (204,),
    "DELETE /v1/tokens/{token_id}": (204,),
    "DELETE /v1/publishers/{publisher_id}": (204,),
    "POST /v1/keys": (200, 201),
    "POST /v1/keys/{key_id}/revoke": (200,),
    "DELETE /v1/webhooks/{webhook_id}": (204,),
    "POST /v1/webhooks/{webhook_id}/test": (202,),
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery}/redeliver": (202,),
}
_EMPTY = (204, 304)
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


class SchemaPlugin(JsonRenderPlugin):
    """Renders the completed schema."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, completed(openapi_schema))


def completed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with bearer tokens, each operation's successes, and a problem as its default answer."""
    found = copy.deepcopy(schema)
    components = found.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    components["securitySchemes"] = {"bearer": _BEARER}
    found["security"] = [{"bearer": []}]
    paths = found.get("paths", {})
    paths.pop("/schema/{path}", None)  # where there is nothing
    for path, operations in paths.items():
        for method in _METHODS:
            if method in operations:
                _complete(operations[method], f"{method.upper()} {path.replace('/{second}', '')}")
    if upload := paths.get("/v1/blobs/{digest}", {}).get("put"):
        upload["requestBody"] = {"content": _BYTES, "required": False}
    return found


def answer_unknown(response: Response[Any]) -> Response[Any]:
    """Litestar 2.25 answers for an unknown page below /schema with one of its own, in HTML."""
    if response.status_code != 404:
        return response
    return problem(404, "not_found", "there is no such page; GET /schema/openapi.json is the description")


def _complete(operation: dict[str, Any], name: str) -> None:
    responses = operation.setdefault("responses", {})
    # Litestar declares a 400 of a shape that no handler here answers with.
    responses.pop("400", None)
    if statuses := SUCCESSES.get(name):
        declared = responses.popitem()[1]
        for status in statuses:
            said = {"description": HTTPStatus(status).phrase}
            responses[str(status)] = said if status in _EMPTY else {**declared, **said}
    responses["default"] = _REFUSED
    body = operation.get("requestBody")
    # A body that may be null may be left out too, which Litestar does not say.
    if body and any({"type": "null"} in one["schema"].get("oneOf", ()) for one in body["content"].values()):
        body["required"] = False
