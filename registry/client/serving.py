"""The calls that services make while serving, for an event loop."""

import contextlib
from collections.abc import AsyncIterator

import httpx

from registry.client.calls import (
    CHUNK_BYTES,
    Call,
    T,
    Unreachable,
    alias_call,
    auth_header,
    decode,
    gate_call,
    headers_of,
    no_answer,
    raise_for,
    resolve_call,
)
from registry.names import check_hex
from registry.records import AliasInfo, GateReport, Resolved


class AsyncClient:
    """The calls that services make while serving."""

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(base_url=self.url, headers=auth_header(token), timeout=timeout)

    async def close(self) -> None:
        await self._http.aclose()

    async def resolve(self, ref: str) -> Resolved:
        return await self._send(resolve_call(ref))

    async def alias(self, adapter: str, alias: str = "approved") -> AliasInfo:
        return await self._send(alias_call(adapter, alias))

    async def gate(self, ref: str) -> GateReport:
        return await self._send(gate_call(ref))

    @contextlib.asynccontextmanager
    async def download(self, sha256: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a blob's bytes; the caller checks them against the digest."""
        async with self._http.stream("GET", f"/v1/blobs/sha256:{check_hex(sha256)}") as response:
            if response.status_code != 200:
                await response.aread()
                raise_for(response)
            yield response.aiter_bytes(CHUNK_BYTES)

    async def _send(self, call: Call[T]) -> T:
        try:
            response = await self._http.request(call.method, call.path, params=call.params, headers=headers_of(call))
        except httpx.HTTPError as error:
            raise Unreachable(no_answer(self.url, error)) from None
        return decode(raise_for(response), call.answer)
