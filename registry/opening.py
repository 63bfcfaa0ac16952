"""Opening a home: keys, journal, blobs and catalog in the order that makes a half-done first start repeatable."""

import os
import secrets
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import msgspec

from registry.access import new_secret
from registry.attestation import Signer
from registry.commands.context import Context, Outcome
from registry.errors import InvalidRequest, StorageDamaged
from registry.events import AnyEvent, RegistryCreated, TokenCreated
from registry.names import sha256_hex
from registry.records import KeySet, Role
from registry.registry import SYSTEM, Registry
from registry.settings import Home
from registry.storage.blobs import LocalBlobs
from registry.storage.catalog import open_catalog, rebuild_catalog
from registry.storage.files import write_durably
from registry.storage.journal import FileJournal, Journal

_ADMIN_DAYS = 3650


class Opened(NamedTuple):
    """`first_start`: keys and admin token were made just now."""

    registry: Registry
    first_start: bool


def open_registry(home: Home, *, lease_seconds: float = 30.0) -> Opened:
    """Open a home, making it on first start. Raises StorageDamaged if what is there cannot be trusted."""
    for folder in (home.root, home.signing_key.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = FileJournal(home.journal)
    try:
        signer, draw_secret = _keys(home, journal)
        blobs = LocalBlobs(home.blobs)
        catalog = open_catalog(home.catalog, home.staging, blobs, journal)
    except BaseException:
        journal.close()
        raise
    first_start = journal.head.seq == 0
    registry = Registry(
        journal=journal,
        catalog=catalog,
        blobs=blobs,
        signer=signer,
        draw_secret=draw_secret,
        lease_seconds=lease_seconds,
    )
    if first_start:
        _begin(registry, home, signer, draw_secret)
    return Opened(registry, first_start)


def rebuild(home: Home, *, accept_loss: bool = False) -> int:
    """Throw the catalog away and fold the journal anew; the number of the last entry.

    Refuses, unless the loss is accepted, when the catalog knows of entries that the journal does not have.
    """
    if not home.journal.exists():
        raise InvalidRequest(f"there is no journal in {home.root}; set TUNEGATE_HOME to the registry's home")
    journal = FileJournal(home.journal, accept_loss=accept_loss)
    try:
        blobs = LocalBlobs(home.blobs)
        if home.catalog.exists() and not accept_loss:
            open_catalog(home.catalog, home.staging, blobs, journal).close()
        rebuild_catalog(home.catalog, home.staging, blobs, journal).close()
        return journal.head.seq
    finally:
        journal.close()


def _keys(home: Home, journal: Journal) -> tuple[Signer, bytes]:
    """Signing key and draw secret, made if the journal is empty and checked against its first entry otherwise."""
    first = next(journal.read(), None)
    if first is None:
        if not home.signing_key.exists():
            write_durably(home.signing_key, Signer.generate().to_pem())
        if not home.draw_secret.exists():
            write_durably(home.draw_secret, secrets.token_bytes(32))
    try:
        signer = Signer.from_pem(home.signing_key.read_bytes())
        draw_secret = home.draw_secret.read_bytes()
    except FileNotFoundError as error:
        raise StorageDamaged(f"{error.filename} is missing; restore the keys from a backup") from None
    except ValueError as error:
        raise StorageDamaged(f"{home.signing_key} cannot be read: {error}; restore it from a backup") from None
    if first is not None:
        created = first.entry.events[0]
        assert isinstance(created, RegistryCreated)
        if created.draw_commitment != sha256_hex(draw_secret):
            raise StorageDamaged(f"{home.draw_secret} is not the one this journal began with; restore the keys")
        if created.key != signer.public.id:
            raise StorageDamaged(f"{home.signing_key} is not the one this journal began with; restore the keys")
    write_durably(home.public_keys, msgspec.json.encode(KeySet(keys=[signer.public])), mode=0o644)
    return signer, draw_secret


def _begin(registry: Registry, home: Home, signer: Signer, draw_secret: bytes) -> None:
    """The first entry. The admin token is on disk before it is valid, never the other way round."""
    id_, secret = new_secret(Role.ADMIN)
    write_durably(home.admin_token, secret.encode() + b"\n")
    expires_at = (datetime.now(UTC) + timedelta(days=_ADMIN_DAYS)).isoformat(timespec="seconds")
    events: list[AnyEvent] = [
        RegistryCreated(registry=secrets.token_hex(16), key=signer.public.id, draw_commitment=sha256_hex(draw_secret)),
        TokenCreated(
            id=id_,
            role=Role.ADMIN,
            person=os.environ.get("USER") or "admin",
            secret_sha256=sha256_hex(secret.encode()),
            expires_at=expires_at,
        ),
    ]
    registry.execute(SYSTEM, partial(_happened, outcome=Outcome(None, events)))


def _happened(context: Context, outcome: Outcome) -> Outcome:
    return outcome
