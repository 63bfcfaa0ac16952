"""Evidence bundles as directories: `bundle.json`, canonical JSON, beside `rows.parquet`, the per-item rows it names.

save_bundle(client, "support-bot/7", Path("bundle"))
recompute(*load_bundle(Path("bundle")))           # needs no registry
"""

import shutil
import uuid
from pathlib import Path
from typing import NamedTuple

import duckdb
import msgspec
import rfc8785

from registry.client import Client, describe_file
from registry.errors import EvidenceRefused, InvalidRequest
from registry.records import Bundle, ItemRow
from registry.storage.files import sync_directory
from registry.storage.rows import read_rows

BUNDLE_FILE, ROWS_FILE = "bundle.json", "rows.parquet"


class Loaded(NamedTuple):
    """A bundle with its rows; there are none before anything was measured."""

    bundle: Bundle
    rows: list[ItemRow]


def save_bundle(client: Client, ref: str, target: Path) -> Bundle:
    """Fetch the bundle of a version into a new directory, whole or not at all.

    Raises InvalidRequest if `target` exists and is not empty.
    """
    target = target.resolve()  # `.` has no name to put a part beside
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidRequest(f"{target} exists and is not empty; give a new directory")
    bundle = client.bundle(ref)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    partial.mkdir(parents=True)
    try:
        if bundle.evidence is not None:
            client.download(bundle.evidence.rows, partial / ROWS_FILE)
        (partial / BUNDLE_FILE).write_bytes(rfc8785.dumps(msgspec.to_builtins(bundle)))
        partial.replace(target)
        sync_directory(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return bundle


def load_bundle(directory: Path) -> Loaded:
    """The bundle in a directory, its rows checked against the sha256 that its evidence names.

    Raises InvalidRequest if something cannot be read, EvidenceRefused if the rows are others.
    """
    path = directory / BUNDLE_FILE
    try:
        bundle = msgspec.json.decode(path.read_bytes(), type=Bundle)
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be read: {error.strerror}; `tunegate bundle REF --to DIR` makes one"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(
            f"{path} is no bundle: {error}; fetch it again with `tunegate bundle REF --to DIR`"
        ) from None
    return Loaded(bundle, _checked_rows(directory / ROWS_FILE, bundle.evidence.rows) if bundle.evidence else [])


def _checked_rows(path: Path, sha256: str) -> list[ItemRow]:
    try:
        found = describe_file(path).sha256
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}; the evidence needs its rows") from None
    if found != sha256:
        raise EvidenceRefused(
            f"{path} has sha256 {found}, the evidence names {sha256}: these are not the rows it is of"
        )
    try:
        return read_rows(path)
    except (duckdb.Error, EvidenceRefused) as error:
        raise EvidenceRefused(f"{path} holds no per-item rows: {str(error)[:200]}") from None
