"""How a request is put together and how its answer is read, for both clients: plain functions without a connection."""

import uuid
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from registry.errors import TunegateError
from registry.records import AliasInfo, GateReport, Resolved

T = TypeVar("T")
ATTEMPTS = 4
CHUNK_BYTES = 4 * 1024 * 1024
AGAIN = (502, 503, 504)


class Refused(TunegateError):
    """The registry said no: `status`, stable `code`, all `problems`, and the gate's `report` if there is one."""

    def __init__(
        self, message: str, *, status: int, code: str, problems: list[str], report: GateReport | None, offset: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.problems, self.report, self.offset = status, code, problems, report, offset


class Unreachable(TunegateError):
    """No answer: nothing listens, the connection broke again and again, or what answered is not a registry."""


class Call(NamedTuple, Generic[T]):
    """One request and the type of its answer."""

    method: str
    path: str
    answer: type[T]
    body: Any = None
    params: dict[str, Any] = {}
    headers: dict[str, str] = {}


def adapter_path(adapter: str) -> str:
    return "/v1/adapters/" + quote(adapter, safe="/")


def version_path(ref: str) -> str:
    adapter, _, number = ref.rpartition("/")
    return f"{adapter_path(adapter)}/versions/{int(number)}"


def resolve_call(ref: str) -> Call[Resolved]:
    return Call("GET", "/v1/resolve", Resolved, params={"ref": ref})


def alias_call(adapter: str, alias: str) -> Call[AliasInfo]:
    return Call("GET", f"{adapter_path(adapter)}/aliases/{quote(alias, safe='')}", AliasInfo)


def gate_call(ref: str) -> Call[GateReport]:
    return Call("GET", f"{version_path(ref)}/gate", GateReport)


def auth_header(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def match_header(etag: str | None) -> dict[str, str]:
    return {"If-Match": f'"{etag}"'} if etag is not None else {}


def headers_of(call: Call[Any]) -> dict[str, str]:
    changes = call.method != "GET"
    key = {"Idempotency-Key": str(uuid.uuid4())} if changes else {}
    kind = {"Content-Type": "application/json"} if call.body is not None else {}
    return {**key, **kind, **call.headers}


def encode(call: Call[Any]) -> bytes | None:
    return msgspec.json.encode(call.body) if call.body is not None else None


def decode(response: httpx.Response, kind: type[T]) -> T:
    if response.status_code == 204:
        return msgspec.convert(None, kind)
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreachable(f"{response.url} answered what a tunegate registry would not: {error}") from None


def decode_text(text: str, kind: type[T], url: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise Unreachable(f"{url} sent an event that a tunegate registry would not: {error}") from None


class _ProblemBody(msgspec.Struct):
    detail: str
    code: str
    problems: list[str] = []
    report: GateReport | None = None
    offset: int = 0


def raise_for(response: httpx.Response) -> httpx.Response:
    if response.status_code < 400:
        return response
    try:
        problem = msgspec.json.decode(response.content, type=_ProblemBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreachable(f"{response.url} answered {response.status_code}, but is not a tunegate registry") from None
    raise Refused(
        problem.detail,
        status=response.status_code,
        code=problem.code,
        problems=problem.problems,
        report=problem.report,
        offset=problem.offset,
    )


def no_answer(url: str, error: Exception) -> str:
    return f"no answer from {url} ({error or type(error).__name__}); is `tunegate serve` running there?"
