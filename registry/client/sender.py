"""Sending: a call goes out again where the connection broke or the registry was busy; a list is read page by page."""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from registry.client.calls import (
    AGAIN,
    ATTEMPTS,
    Call,
    T,
    Unreachable,
    auth_header,
    decode,
    encode,
    headers_of,
    no_answer,
    raise_for,
)
from registry.records import Page


class Sender:
    """A connection to one registry, which the calls of every subject are sent through."""

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, headers=auth_header(token), timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def ready(self) -> bool:
        """Whether a registry answers here and can be trusted."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def _send(self, call: Call[T]) -> T:
        response = self._exchange(
            call.method, call.path, content=encode(call), params=call.params, headers=headers_of(call)
        )
        return decode(response, call.answer)

    def _exchange(self, method: str, path: str, **request: Any) -> httpx.Response:
        for attempt in range(ATTEMPTS):
            try:
                response = self._http.request(method, path, **request)
                if response.status_code not in AGAIN or attempt == ATTEMPTS - 1:
                    return raise_for(response)
            except httpx.ConnectError as error:
                raise Unreachable(no_answer(self.url, error)) from None
            except httpx.HTTPError as error:
                if attempt == ATTEMPTS - 1:
                    raise Unreachable(no_answer(self.url, error)) from None
            time.sleep(0.3 * 2**attempt)
        raise AssertionError("unreachable")

    def _pages(self, path: str, page: type[Page[T]], params: dict[str, Any]) -> Iterator[T]:
        cursor = None
        while True:
            found = self._send(Call("GET", path, page, params={**params, **({"cursor": cursor} if cursor else {})}))
            yield from found.items
            if (cursor := found.next_cursor) is None:
                return
