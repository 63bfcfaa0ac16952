"""/v1/blobs: content-addressed bytes, streamed both ways, in any number of attempts."""

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from litestar import Controller, Response, put, route
from litestar.enums import HttpMethod
from litestar.params import FromPath
from litestar.response import Stream

from registry.access import ALL_ROLES, BLOB_READERS, hidden_from
from registry.api.door import AnyRequest, allowed, ask, in_thread
from registry.commands.context import Context
from registry.errors import InvalidRequest, NotFound, RangeRefused
from registry.names import check_digest
from registry.records import Role
from registry.registry import Registry
from registry.storage.blobs import CHUNK_BYTES, LocalBlobs, Upload

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_WRITE_BYTES = 4 * CHUNK_BYTES
WRITERS = (Role.CI, Role.TRAINER, Role.EVALUATOR, Role.ADMIN, Role.RELEASE_MANAGER)


class Piece(NamedTuple):
    """The part of a blob that one request brings: from `offset`, `size` bytes where known, of `total`."""

    offset: int
    size: int | None
    total: int | None


class Blobs(Controller):
    """Put once, get for ever."""

    tags = ["blobs"]
    path = "/v1/blobs"

    @put("/{digest:str}", opt=allowed(*WRITERS) | {"raw": True}, request_max_body_size=None, status_code=200)
    async def upload(self, request: AnyRequest, digest: FromPath[str]) -> Response[Any]:
        """Store bytes under their digest. With `Content-Range: bytes a-b/total` they are a piece of an upload.

        201 when the blob is complete, 200 when it was there already, 202 when more pieces are to come, 416 with the
        right offset when the piece does not continue what is kept, 422 when the bytes are not what the digest says.
        """
        sha256 = check_digest(digest).removeprefix("sha256:")
        blobs = _blobs(request)
        if await in_thread(request, lambda: blobs.has(sha256)):
            return Response({"digest": digest, "size": blobs.size(sha256)}, status_code=200)
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise InvalidRequest("upload the bytes as they are, without Content-Encoding")
        piece = _piece(request)
        upload = await in_thread(request, lambda: blobs.upload(sha256, total=piece.total, offset=piece.offset))
        complete = await _receive(request, upload, piece)
        return Response({"digest": digest, "size": upload.size}, status_code=201 if complete else 202)

    @route(
        "/{digest:str}",
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        opt=allowed(*(ALL_ROLES - {Role.REVIEWER})) | {"raw": True},
    )
    async def download(self, request: AnyRequest, digest: FromPath[str]) -> Response[Any]:
        """The bytes, or one range of them. A digest is its own strong ETag: what was read once never changes."""
        sha256 = check_digest(digest).removeprefix("sha256:")
        blobs = _blobs(request)
        # Sight before presence: whether a hidden blob exists must not show in the answer.
        await ask(request, lambda context: _require_reader(context, sha256))
        size = await in_thread(request, lambda: blobs.size(sha256))
        headers = {
            "ETag": f'"{digest}"',
            "Cache-Control": "private, max-age=31536000, immutable",
            "Accept-Ranges": "bytes",
            "Content-Disposition": "attachment",
            "X-Content-Type-Options": "nosniff",
        }
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return Response(None, status_code=304, headers=headers)
        wanted = _wanted_range(request, size, headers["ETag"])
        first, last = wanted or (0, size - 1)
        headers["Content-Length"] = str(last - first + 1)
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        status = 206 if wanted else 200
        if request.method == "HEAD":
            return Response(b"", status_code=status, headers=headers, media_type="application/octet-stream")
        file = await in_thread(request, lambda: blobs.open(sha256))
        content = _read(request, file, first, last - first + 1)
        return Stream(content, status_code=status, headers=headers, media_type="application/octet-stream")


def _blobs(request: AnyRequest) -> LocalBlobs:
    registry: Registry = request.app.state.registry
    return registry.blobs


def _piece(request: AnyRequest) -> Piece:
    length = request.headers.get("Content-Length")
    size = int(length) if length and length.isdigit() else None
    header = request.headers.get("Content-Range")
    if header is None:
        return Piece(0, size, size)
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise InvalidRequest(f"Content-Range {header[:60]!r} is not of the form 'bytes 0-99/1000'")
    first, last, total = (int(number) for number in match.groups())
    if not first <= last < total:
        raise InvalidRequest(f"Content-Range {header!r} is not a range within {total} bytes")
    return Piece(first, last - first + 1, total)


async def _receive(request: AnyRequest, upload: Upload, piece: Piece) -> bool:
    """Write what arrives, in batches off the event loop; True when the blob is complete."""
    end = piece.offset + piece.size if piece.size is not None else None
    try:
        batch = bytearray()
        async for chunk in request.stream():
            batch += chunk
            if len(batch) >= _WRITE_BYTES:
                await _write(request, upload, bytes(batch), end)
                batch.clear()
        await _write(request, upload, bytes(batch), end)
    except BaseException:
        # Where the connection broke, what arrived is kept and can be continued.
        upload.pause()
        raise
    if piece.total is not None and upload.size < piece.total and upload.size == end:
        await in_thread(request, upload.pause)
        return False
    await in_thread(request, upload.finish)
    return True


async def _write(request: AnyRequest, upload: Upload, batch: bytes, end: int | None) -> None:
    if end is not None and upload.size + len(batch) > end:
        upload.abort()
        raise InvalidRequest("more bytes arrived than Content-Length or Content-Range announced; nothing was kept")
    if batch:
        await in_thread(request, lambda: upload.write(batch))


def _require_reader(context: Context, sha256: str) -> None:
    """NotFound unless some version (or suite) that the principal may see holds the blob as something they may read."""
    principal = context.principal
    for holder in context.view.holders(sha256):
        if principal.role not in BLOB_READERS[holder.purpose]:
            continue
        if holder.adapter is None or holder.state is None:
            return
        if principal.may_see(holder.adapter) and not hidden_from(principal, holder.state):
            return
    raise NotFound(f"blob sha256:{sha256} is not stored or not visible to this token")


def _wanted_range(request: AnyRequest, size: int, etag: str) -> tuple[int, int] | None:
    """First and last byte of a satisfiable single range; None for the whole. Several ranges are answered whole."""
    header = request.headers.get("Range")
    if header is None or request.headers.get("If-Range", etag) != etag:
        return None
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        begin, end = max(0, size - int(last)), size - 1
        satisfiable = int(last) > 0 and size > 0
    else:
        begin, end = int(first), min(int(last), size - 1) if last else size - 1
        satisfiable = begin < size and (not last or int(last) >= begin)
    if not satisfiable:
        raise RangeRefused(f"range {header!r} lies outside the blob's {size} bytes", size)
    return begin, end


async def _read(request: AnyRequest, file: BinaryIO, offset: int, size: int) -> AsyncIterator[bytes]:
    try:
        await in_thread(request, partial(file.seek, offset))
        while size > 0 and (chunk := await in_thread(request, partial(file.read, min(CHUNK_BYTES, size)))):
            size -= len(chunk)
            yield chunk
    finally:
        file.close()
