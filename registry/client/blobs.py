"""Bytes to and from a registry. What arrives is hashed before it is believed, and is there whole or not at all."""

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from registry.client.calls import AGAIN, ATTEMPTS, CHUNK_BYTES, Refused, Unreachable, no_answer, raise_for
from registry.client.sender import Sender
from registry.inspection.adapter import ACCEPTED_FILES
from registry.names import check_hex
from registry.records import FileEntry, Suite
from registry.storage.files import sync_directory
from registry.suites import SuiteContent, read_suite


class Blobs(Sender):
    """Uploads that go on where they broke, and downloads that are verified."""

    def upload(self, source: Path | bytes) -> FileEntry:
        """Store a file's bytes; a broken upload is continued where it stopped. The entry's path is the file's name."""
        data: Path | bytes = source
        entry = describe_file(source) if isinstance(source, Path) else _describe_bytes(source)
        path, offset = f"/v1/blobs/sha256:{entry.sha256}", 0
        for attempt in range(ATTEMPTS):
            headers = {"Content-Length": str(entry.size - offset), "Content-Type": "application/octet-stream"}
            if offset:
                headers["Content-Range"] = f"bytes {offset}-{entry.size - 1}/{entry.size}"
            try:
                raise_for(self._http.put(path, content=_chunks(data, offset), headers=headers))
                return entry
            except Refused as error:
                if error.status not in (409, 416, *AGAIN) or attempt == ATTEMPTS - 1:
                    raise
                if error.status != 416:  # 409: the registry has not noticed yet that the first connection broke
                    time.sleep(0.3 * 2**attempt)
                    continue
                # All bytes kept and none to send: only from the start are they hashed again and published.
                offset = error.offset if error.offset < entry.size else 0
            except httpx.TransportError as error:
                if attempt == ATTEMPTS - 1:
                    raise Unreachable(no_answer(self.url, error)) from None
                time.sleep(0.3 * 2**attempt)
                # Ask where to go on: an offset that cannot be right is answered with the one that is.
                offset = max(1, entry.size - 1) if entry.size > 1 else 0
        raise Unreachable(f"{self.url} did not take {entry.path}")

    def download(self, sha256: str, target: Path) -> None:
        """Fetch a blob to `target`, whole and verified or not at all."""
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        digest = hashlib.sha256()
        try:
            with (
                partial.open("xb") as file,
                self._http.stream("GET", f"/v1/blobs/sha256:{check_hex(sha256)}") as response,
            ):
                if response.status_code != 200:
                    response.read()
                    raise_for(response)
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise Unreachable(f"blob {sha256} arrived damaged: its bytes do not hash to that; try again")
            partial.replace(target)
        except httpx.HTTPError as error:
            raise Unreachable(no_answer(self.url, error)) from None
        finally:
            partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def download_files(self, files: Sequence[FileEntry], target: Path) -> Iterator[Path]:
        """Fetch an adapter's files into a new directory, which becomes `target` when the block ends well.

        The block may add to the directory it is given. Raises Unreachable for a name that is no adapter's.
        """
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        partial.mkdir(parents=True)
        try:
            for entry in files:
                if entry.path not in ACCEPTED_FILES:
                    raise Unreachable(f"the registry offers {entry.path!r}, no file of an adapter; it is not fetched")
                self.download(entry.sha256, partial / entry.path)
            yield partial
            partial.replace(target)
            sync_directory(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def suite_content(self, suite: Suite) -> SuiteContent:
        """The parsed files of a registered suite, their digests checked."""
        content = {}
        for file in suite.files:
            response = self._exchange("GET", f"/v1/blobs/sha256:{file.sha256}")
            if hashlib.sha256(response.content).hexdigest() != file.sha256:
                raise Unreachable(f"{suite.name}/{file.path} arrived damaged; try again")
            content[file.path] = response.content
        return read_suite(content)


def describe_file(path: Path) -> FileEntry:
    """Name, size and sha256 of a file."""
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(path, 0):
        digest.update(chunk)
        size += len(chunk)
    return FileEntry(path=path.name, size=size, sha256=digest.hexdigest())


def _describe_bytes(data: bytes) -> FileEntry:
    return FileEntry(path="data", size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _chunks(source: Path | bytes, offset: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source[offset:]
        return
    with source.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
