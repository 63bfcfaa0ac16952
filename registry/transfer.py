"""Pushing a directory as a version and pulling a version into a directory: what moves, what stays behind."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from registry.approval.verification import ATTESTATION_FILE, FRESHNESS_FILE
from registry.client import Client, Unreachable, describe_file
from registry.errors import InvalidRequest
from registry.inspection.adapter import ACCEPTED_FILES, REQUIRED_FILES
from registry.names import parse_reference
from registry.records import (
    RegisterSuite,
    Resolved,
    SubmitVersion,
    Suite,
    TrainingRecord,
    VersionCreated,
    manifest_digest,
)
from registry.suites import GOLD_FILE, SUITE_FILES, read_suite


class Training(NamedTuple):
    """A training record with the files it names."""

    record: TrainingRecord
    dataset: Path
    ledger: Path


def split_directory(directory: Path) -> tuple[list[Path], list[str]]:
    """The files to push and the names of what is left behind; raises InvalidRequest if it is no adapter."""
    if not directory.is_dir():
        raise InvalidRequest(f"{directory} is not a directory; give the one that peft's save_pretrained wrote")
    found = sorted(directory.iterdir())
    taken = [path for path in found if path.name in ACCEPTED_FILES and path.is_file() and not path.is_symlink()]
    if missing := set(REQUIRED_FILES) - {path.name for path in taken}:
        raise InvalidRequest(
            f"{directory} is no adapter: {', '.join(sorted(missing))} is missing; train or convert one"
        )
    return taken, [path.name for path in found if path not in taken]


def push(
    client: Client, directory: Path, adapter: str, *, training: Training | None = None, notes: str | None = None
) -> tuple[VersionCreated, list[str]]:
    """Submit, upload what the registry lacks, complete. Returns the version and the names left behind.

    Repeating it after a broken connection continues: the same files are the same version.
    """
    taken, left = split_directory(directory)
    entries = [describe_file(path) for path in taken]
    sources = {entry.sha256: path for entry, path in zip(entries, taken, strict=True)}
    if training:
        sources |= {describe_file(path).sha256: path for path in (training.dataset, training.ledger)}
    request = SubmitVersion(files=entries, training=training.record if training else None, notes=notes)
    created = client.submit(adapter, request)
    for sha256 in created.missing:
        client.upload(sources[sha256])
    return client.complete(created.ref), left


def suite_files(directory: Path) -> dict[str, bytes]:
    """The files of the suite in a directory."""
    try:
        return {path.name: path.read_bytes() for path in suite_paths(directory)}
    except OSError as error:
        raise InvalidRequest(f"{directory} is no suite: {error.strerror}: {error.filename}") from None


def suite_paths(directory: Path) -> list[Path]:
    """Where a suite's files are: those that every suite has, and its gold items where there are some."""
    gold = directory / GOLD_FILE
    return [*(directory / name for name in SUITE_FILES), *([gold] if gold.exists() else [])]


def push_suite(client: Client, directory: Path) -> Suite:
    """Register the suite in a directory; the same content again changes nothing."""
    name = read_suite(suite_files(directory)).head.name
    paths = suite_paths(directory)
    files = [describe_file(path) for path in paths]
    if manifest_digest(files) not in {suite.digest for suite in client.suites()}:
        for path in paths:
            client.upload(path)
    return client.register_suite(RegisterSuite(name=name, files=files))


def pull(
    client: Client,
    ref: str,
    target: Path,
    report: Callable[[str], None] = lambda _: None,
    check: Callable[[Path, Resolved], None] = lambda *_: None,
) -> Resolved:
    """Fetch a version into `target`, whole or not at all, with its signed approval beside it.

    An alias comes with the registry's word that it names this version now, asked for once the files are here.
    check: is given the directory before it takes its place; what it raises leaves nothing behind.
    Raises InvalidRequest if `target` exists and is not empty, Unreachable if what comes is not what `ref` names.
    """
    target = target.resolve()  # `.` has no name to put a part beside
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidRequest(f"{target} exists and is not empty; give a new directory")
    resolved = client.resolve(ref)
    parsed = parse_reference(ref)
    wanted = parsed.digest or resolved.digest
    if manifest_digest(resolved.files, resolved.base) != wanted:
        raise Unreachable(f"{client.url} offers files for {ref!r} that do not add up to {wanted}; they are not fetched")
    for entry in resolved.files:
        report(f"{entry.path} ({entry.size:,} bytes)")
    with client.download_files(resolved.files, target) as directory:
        if resolved.attestation is not None:
            (directory / ATTESTATION_FILE).write_bytes(msgspec.json.encode(resolved.attestation))
            if parsed.alias is not None:
                said = client.freshness(parsed.adapter, parsed.alias)
                (directory / FRESHNESS_FILE).write_bytes(msgspec.json.encode(said))
        check(directory, resolved)
    return resolved
