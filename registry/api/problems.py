"""Errors as RFC 9457 problem+json: the one table from error class to status and code.

Whatever goes wrong, the body has this shape; what we did not expect is a 500 without any detail of the inside.
"""

import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.exceptions import NotFoundException as RouteNotFound

from registry import errors

_log = logging.getLogger("tunegate")

TABLE: dict[type[errors.TunegateError], tuple[int, str]] = {
    errors.InvalidRequest: (422, "invalid_request"),
    errors.InspectionFailed: (422, "inspection_failed"),
    errors.DigestMismatch: (422, "digest_mismatch"),
    errors.EvidenceRefused: (422, "evidence_refused"),
    errors.IdempotencyMismatch: (422, "idempotency_mismatch"),
    errors.AddressRefused: (422, "address_refused"),
    errors.RangeRefused: (416, "range_refused"),
    errors.TooLarge: (413, "too_large"),
    errors.Unauthenticated: (401, "unauthenticated"),
    errors.Forbidden: (403, "forbidden"),
    errors.NotFound: (404, "not_found"),
    errors.Conflict: (409, "conflict"),
    errors.AlreadyExists: (409, "already_exists"),
    errors.Revoked: (409, "revoked"),
    errors.StaleLease: (409, "stale_lease"),
    errors.GateNotSatisfied: (409, "gate_not_satisfied"),
    errors.PreconditionFailed: (412, "precondition_failed"),
    errors.TooManyRequests: (429, "too_many_requests"),
    errors.WrongHost: (421, "wrong_host"),
    errors.BlobDamaged: (500, "blob_damaged"),
    errors.Unavailable: (503, "unavailable"),
    errors.OutboundFailed: (503, "outbound_failed"),
    errors.StorageFull: (507, "storage_full"),
    errors.StorageDamaged: (503, "storage_damaged"),
}
_TITLES = {
    400: "Malformed request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    421: "Misdirected request",
    422: "Invalid request",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
    507: "Insufficient storage",
}


def problem(status: int, code: str, detail: str, **more: Any) -> Response[bytes]:
    """A problem+json response."""
    document = {
        "type": f"https://tunegate.dev/problems/{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    return Response(msgspec.json.encode(document), status_code=status, media_type="application/problem+json")


def on_tunegate_error(_: Request[Any, Any, Any], error: errors.TunegateError) -> Response[bytes]:
    status, code = TABLE[type(error)]
    more: dict[str, Any] = {}
    headers: dict[str, str] = {}
    match error:
        case errors.InvalidRequest(problems=problems) if problems:
            more["problems"] = problems
        case errors.GateNotSatisfied(report=report):
            more["report"] = report
        case errors.PreconditionFailed(current=current):
            headers["ETag"] = f'"{current}"'
        case errors.RangeRefused(size=int(size)):
            headers["Content-Range"] = f"bytes */{size}"
        case errors.RangeRefused(offset=offset):
            headers["Range"] = f"bytes=0-{offset - 1}" if offset else "bytes=0-0"
            more["offset"] = offset
        case errors.Unauthenticated():
            headers["WWW-Authenticate"] = "Bearer"
        case errors.TooManyRequests(retry_seconds=seconds):
            headers["Retry-After"] = str(seconds)
        case errors.Unavailable():
            headers["Retry-After"] = "5"
    response = problem(status, code, str(error), **more)
    response.headers.update(headers)
    return response


def on_http_exception(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the framework refuses: unknown routes, bodies that do not fit, wrong methods."""
    if isinstance(error, ValidationException):
        problems = [
            ": ".join(part for part in (one.get("key"), one.get("message")) if part)
            for one in error.extra or []
            if isinstance(one, dict)
        ]
        return problem(422, "invalid_request", "; ".join(problems) or error.detail, problems=problems)
    if isinstance(error, RouteNotFound):
        return problem(404, "not_found", "there is no such resource; GET /schema/openapi.json lists all")
    code = {400: "malformed", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
    response = problem(error.status_code, code.get(error.status_code, "refused"), error.detail)
    response.headers.update(error.headers or {})
    return response


def on_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, "internal", "the registry met an error of its own; its log says more")
