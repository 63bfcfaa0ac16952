"""/v1/blobs: content-addressed bytes, streamed both ways, in any number of attempts.

Upwards, one batch is hashed and written by a thread while the next arrives. Downwards, every byte is hashed again: a
blob that rotted is never handed out whole.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from litestar import Controller, Response, put, route
from litestar.enums import HttpMethod
from litestar.exceptions import InternalServerException
from litestar.params import FromPath
from litestar.response import Stream

from registry.access import ALL_ROLES, BLOB_READERS, hidden_from, may_know_blob
from registry.api.door import AnyRequest, allowed, ask, principal_of
from registry.api.ranges import Piece, Span, is_known, read_piece, wanted_span
from registry.api.transfers import Transfers, transfers_of
from registry.commands.blobs import sent
from registry.commands.context import Context
from registry.commands.quota import room_for
from registry.errors import BlobDamaged, DigestMismatch, InvalidRequest, NotFound, TunegateError
from registry.names import check_digest
from registry.quarantine import report_quarantined
from registry.records import Role, State
from registry.registry import Registry
from registry.storage.blobs import CHUNK_BYTES, LocalBlobs
from registry.storage.uploads import Upload

_BATCH_BYTES = 2 * CHUNK_BYTES
# As much is read and checked before the answer begins, so that damage in it is an answer and no broken connection.
_CHECKED_AHEAD_BYTES = 4 * CHUNK_BYTES
_BINARY = "application/octet-stream"
WRITERS = (Role.CI, Role.TRAINER, Role.EVALUATOR, Role.ADMIN, Role.RELEASE_MANAGER)
# Held-out data stays hidden even where somebody got a version to name it as something that more people may read.
_SECRET_PURPOSES = ("suite", "items")


class Blobs(Controller):
    """Put once, get for ever."""

    tags = ["blobs"]
    path = "/v1/blobs"

    @put("/{digest:str}", opt=allowed(*WRITERS) | {"raw": True}, request_max_body_size=None, status_code=200)
    async def upload(self, request: AnyRequest, digest: FromPath[str]) -> Response[Any]:
        """Store bytes under their digest. With `Content-Range: bytes a-b/total` they are a piece of an upload.

        201 when the blob is complete, 200 when it was there already, 202 when more pieces are to come, 416 with the
        right offset when the piece does not continue what is kept, 422 when the bytes are not what the digest says,
        413 over a limit or quota, 507 when the disk is nearly full.
        """
        sha256 = check_digest(digest).removeprefix("sha256:")
        piece = read_piece(request.headers)
        with _blobs(request).arriving(sha256, principal_of(request).scope, piece.total):
            return await _upload(request, digest, sha256, piece)

    @route(
        "/{digest:str}",
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        opt=allowed(*(ALL_ROLES - {Role.REVIEWER})) | {"raw": True},
    )
    async def download(self, request: AnyRequest, digest: FromPath[str]) -> Response[Any]:
        """The bytes, or one range of them. A digest is its own strong ETag: what was read once never changes.

        500 `blob_damaged` when they rotted on disk; where that shows only at the end, the answer breaks off before it.
        """
        sha256 = check_digest(digest).removeprefix("sha256:")
        # Sight before presence: whether a hidden blob exists must not show in the answer.
        await ask(request, lambda context: _require_reader(context, sha256))
        try:
            return await _answer(request, sha256)
        except BlobDamaged:
            await _report(request)
            raise


def _registry(request: AnyRequest) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


def _blobs(request: AnyRequest) -> LocalBlobs:
    return _registry(request).blobs


# -- up -----------------------------------------------------------------------------------------------------------


class _Standing(NamedTuple):
    """Whether the bytes need not be sent, being stored and for this principal to know; else how many may be."""

    is_there: bool
    most: int | None


class _Batches:
    """What arrives, in batches, each written by a thread while the next one is gathered."""

    def __init__(self, transfers: Transfers, upload: Upload) -> None:
        self._transfers, self._upload = transfers, upload
        self._gathered: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Future[None] | None = None

    async def add(self, chunk: bytes) -> None:
        self._gathered.append(chunk)
        self._size += len(chunk)
        if self._size >= _BATCH_BYTES:
            await self._write()

    async def end(self) -> None:
        """Returns when everything is written."""
        await self._write()
        await self._written()

    async def _write(self) -> None:
        await self._written()
        batch, self._gathered, self._size = self._gathered, [], 0
        if batch:
            self._writing = self._transfers.start(partial(self._upload.write, *batch))
            # Where the connection breaks nobody asks any more how it went.
            self._writing.add_done_callback(lambda done: done.cancelled() or done.exception())

    def keep(self) -> None:
        """Write what is gathered and keep the part, unless something went wrong with it."""
        with contextlib.suppress(TunegateError):
            if self._upload.is_open and self._gathered:
                self._upload.write(*self._gathered)
        self._upload.pause()

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing


async def _upload(request: AnyRequest, digest: str, sha256: str, piece: Piece) -> Response[Any]:
    registry, blobs = _registry(request), _blobs(request)
    standing = await ask(request, lambda context: _standing(context, sha256))
    if standing.is_there:
        size = blobs.size(sha256)
        if piece.total not in (None, size):
            raise DigestMismatch(f"blob {digest} has {size} bytes, not {piece.total}; send the bytes of that digest")
        return Response({"digest": digest, "size": size}, status_code=200)
    # A part belongs to the scope of who sends it: finishing another's would prove nothing.
    scope = principal_of(request).scope
    begin = partial(blobs.upload, sha256, total=piece.total, offset=piece.offset, owner=scope, most=standing.most)
    upload = await (transfers_of(request).scan(begin) if piece.offset else transfers_of(request).start(begin))
    complete = await _receive(request, upload, piece)
    if complete and scope is not None:
        told = partial(registry.execute, principal_of(request), partial(sent, sha256=sha256))
        await transfers_of(request).start(told)
    return Response({"digest": digest, "size": upload.size}, status_code=201 if complete else 202)


async def _receive(request: AnyRequest, upload: Upload, piece: Piece) -> bool:
    """Write what arrives; True when the blob is complete."""
    transfers, left = transfers_of(request), piece.size
    batches = _Batches(transfers, upload)
    try:
        async for chunk in request.stream():
            if left is not None and (left := left - len(chunk)) < 0:
                await transfers.start(upload.abort)
                raise InvalidRequest("more bytes arrived than Content-Range announced; nothing was kept")
            await batches.add(chunk)
        await batches.end()
    except BaseException as error:
        # Where the connection broke, what arrived is kept and can be continued. Not awaited: this may be a
        # cancellation, and a batch that is still being written goes first.
        with contextlib.suppress(RuntimeError):  # the service ends, and with it every open file
            transfers.start(batches.keep)
        if isinstance(error, InternalServerException):  # Litestar's word for a client that went away
            raise InvalidRequest("the connection broke; continue the upload with Content-Range") from None
        raise
    if piece.total is not None and upload.size < piece.total and not left:
        await transfers.start(upload.pause)
        return False
    await transfers.start(upload.finish)
    return True


def _standing(context: Context, sha256: str) -> _Standing:
    if context.services.blobs.has(sha256) and may_know_blob(context.view, context.principal, sha256):
        return _Standing(True, None)
    return _Standing(False, room_for(context, sha256))


# -- down ---------------------------------------------------------------------------------------------------------


async def _answer(request: AnyRequest, sha256: str) -> Response[Any]:
    blobs, transfers = _blobs(request), transfers_of(request)
    etag = f'"sha256:{sha256}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "private, max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }
    size = await transfers.start(partial(blobs.size, sha256))
    if is_known(request.headers.get("If-None-Match"), etag):
        return Response(None, status_code=304, headers=headers)
    span = wanted_span(request.headers, size, etag)
    if span:
        headers["Content-Range"] = f"bytes {span.first}-{span.last}/{size}"
    length = {"Content-Length": str(span.last - span.first + 1 if span else size)}
    status = 206 if span else 200
    if request.method == "HEAD":
        return Response(b"", status_code=status, headers=headers | length, media_type=_BINARY)
    if span:
        if not await transfers.start(partial(blobs.is_checked, sha256)):
            await transfers.scan(partial(blobs.check, sha256))
        content = _read_span(transfers, await transfers.start(partial(blobs.open, sha256)), span)
        return Stream(content, status_code=status, headers=headers | length, media_type=_BINARY)
    if size <= _CHECKED_AHEAD_BYTES:
        data = await transfers.start(partial(blobs.read, sha256, most_bytes=_CHECKED_AHEAD_BYTES))
        return Response(data, status_code=status, headers=headers, media_type=_BINARY)
    file = await transfers.start(partial(blobs.open, sha256))
    content = _read_through(request, sha256, file)
    return Stream(content, status_code=status, headers=headers | length, media_type=_BINARY)


async def _read_through(request: AnyRequest, sha256: str, file: BinaryIO) -> AsyncIterator[bytes]:
    """The whole blob; breaks off before the last chunk if it is not what its name says."""
    chunks = _blobs(request).read_through(sha256, file)
    try:
        while chunk := await transfers_of(request).start(partial(next, chunks, b"")):
            yield chunk
    except BlobDamaged:
        await _report(request)
        raise


async def _read_span(transfers: Transfers, file: BinaryIO, span: Span) -> AsyncIterator[bytes]:
    with file:
        position = span.first
        while position <= span.last:
            wanted = min(CHUNK_BYTES, span.last + 1 - position)
            chunk = await transfers.start(partial(os.pread, file.fileno(), wanted, position))
            if not chunk:
                return
            position += len(chunk)
            yield chunk


async def _report(request: AnyRequest) -> None:
    await transfers_of(request).start(partial(report_quarantined, _registry(request)))


def _require_reader(context: Context, sha256: str) -> None:
    """NotFound unless some version (or suite) that the principal may see holds the blob as something they may read."""
    principal, holders = context.principal, context.view.holders(sha256)
    if any(one.purpose in _SECRET_PURPOSES and principal.role not in BLOB_READERS[one.purpose] for one in holders):
        holders = []
    for holder in holders:
        if principal.role not in BLOB_READERS[holder.purpose]:
            continue
        if holder.adapter is None or holder.state is None:
            return
        if not principal.may_see(holder.adapter) or hidden_from(principal, holder.state):
            continue
        # Announcing a hash, which is all that an unfinished version does, must not hand out the bytes of others.
        if holder.state is not State.UPLOADING:
            return
    raise NotFound(f"blob sha256:{sha256} is not stored or not visible to this token")
