"""Opening a home: keys, journal, blobs and catalog in the order that makes a half-done first start repeatable."""

import base64
import os
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from registry import settings
from registry.access import Principal, new_secret
from registry.approval.attestation import Signer
from registry.approval.dsse import key_id
from registry.commands import keys, tokens
from registry.commands.context import Context, Outcome
from registry.errors import InvalidRequest, StorageDamaged
from registry.events import AnyEvent, RegistryCreated, TokenCreated
from registry.names import sha256_hex
from registry.quarantine import report_quarantined
from registry.records import CreateToken, KeySet, Role, TokenInfo
from registry.registry import SYSTEM, Registry
from registry.settings import Home
from registry.storage.blobs import LocalBlobs
from registry.storage.catalog import open_catalog, rebuild_catalog
from registry.storage.files import sync_directory, write_durably
from registry.storage.journal import FileJournal, Journal
from registry.storage.views import View

ADMIN_DAYS = 30
_RESTORE_KEY = "restore the keys from a backup, or replace a lost key with `tunegate keys rotate`"


class Opened(NamedTuple):
    """`first_start`: keys and admin token were made just now."""

    registry: Registry
    first_start: bool


def open_registry(home: Home, *, lease_seconds: float = 30.0) -> Opened:
    """Open a home, making it on first start. Raises StorageDamaged if what is there cannot be trusted."""
    if home.restoring.exists():
        raise StorageDamaged(f"{home.root} holds an unfinished restore; remove that directory, then restore again")
    approval_days = settings.approval_days()
    for folder in (home.root, home.signing_key.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = FileJournal(home.journal)
    try:
        draw_secret = _draw_secret(home, journal)
        if journal.head.seq == 0 and not home.signing_key.exists():
            write_durably(home.signing_key, Signer.generate().to_pem())
        signers = _signers(home)
        blobs = LocalBlobs(home.blobs, limits=settings.limits())
        _tidy(home, blobs)
        catalog = open_catalog(home.catalog, home.staging, blobs, journal)
        try:
            with catalog.explaining():
                signer = _current(home, signers, catalog.view())
        except BaseException:
            catalog.close()
            raise
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
        approval_days=approval_days,
        home=home,
    )
    try:
        if first_start:
            _begin(registry, home, signer, draw_secret)
        report_quarantined(registry)
        found = registry.ask(SYSTEM, lambda context: keys.key_set(context.view, signer))
        write_durably(home.public_keys, msgspec.json.encode(found), mode=0o644)
    except BaseException:
        registry.close()
        raise
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


def rotate_key(home: Home) -> KeySet:
    """Replace the signing key of a registry that is not running; the keys there are afterwards.

    The new key lies beside the old one until the journal names it, so that a crash at any point leaves a home that
    opens. The old private key is gone then. It is not needed for this: a lost key is replaced in the same way.
    """
    if not home.journal.exists():
        raise InvalidRequest(f"there is no journal in {home.root}; set TUNEGATE_HOME to the registry's home")
    journal = FileJournal(home.journal)
    try:
        draw_secret, blobs, fresh = _draw_secret(home, journal), LocalBlobs(home.blobs), Signer.generate()
        catalog = open_catalog(home.catalog, home.staging, blobs, journal)
    except BaseException:
        journal.close()
        raise
    registry = Registry(journal=journal, catalog=catalog, blobs=blobs, signer=fresh, draw_secret=draw_secret)
    try:
        write_durably(home.next_key, fresh.to_pem())
        before = registry.ask(SYSTEM, lambda context: keys.current_key(context.view))
        replaced = _kept_public(home, before.id) if before else None
        registry.execute(_operator(), partial(keys.rotate, fresh=fresh.public, previous_public=replaced))
        found = registry.ask(SYSTEM, lambda context: keys.key_set(context.view, fresh))
        _take_over(home)
        write_durably(home.public_keys, msgspec.json.encode(found), mode=0o644)
        return found
    finally:
        registry.close()


def recover_admin(home: Home) -> TokenInfo:
    """A new admin token, in the home, of a registry that is not running: for when nobody holds a valid one any more.

    Whoever may write to the home may sign approvals, so this gives nobody more than they have.
    """
    if not home.journal.exists():
        raise InvalidRequest(f"there is no journal in {home.root}; set TUNEGATE_HOME to the registry's home")
    registry = open_registry(home).registry
    try:
        wanted = CreateToken(role=Role.ADMIN, person=_admin(), expires_days=ADMIN_DAYS)
        made = registry.execute(_operator(), partial(tokens.create, request=wanted)).value
        write_durably(home.admin_token, made.secret.encode() + b"\n")
        info: TokenInfo = made.token
        return info
    finally:
        registry.close()


def _draw_secret(home: Home, journal: Journal) -> bytes:
    """Made if the journal is empty, and checked against its first entry otherwise."""
    first = next(journal.read(), None)
    if first is None and not home.draw_secret.exists():
        write_durably(home.draw_secret, secrets.token_bytes(32))
    try:
        draw_secret = home.draw_secret.read_bytes()
    except FileNotFoundError as error:
        raise StorageDamaged(f"{error.filename} is missing; restore the keys from a backup") from None
    if first is not None:
        created = first.entry.events[0]
        assert isinstance(created, RegistryCreated)
        if created.draw_commitment != sha256_hex(draw_secret):
            raise StorageDamaged(f"{home.draw_secret} is not the one this journal began with; restore the keys")
    return draw_secret


def _signers(home: Home) -> dict[Path, Signer]:
    """The private keys that lie here: the signing key, and one that a rotation was about to put in its place."""
    found = {}
    for path in (home.signing_key, home.next_key):
        try:
            found[path] = Signer.from_pem(path.read_bytes())
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise StorageDamaged(f"{path} cannot be read: {error}; restore it from a backup") from None
    if not found:
        raise StorageDamaged(f"{home.signing_key} is missing; {_RESTORE_KEY}")
    return found


def _current(home: Home, signers: Mapping[Path, Signer], view: View) -> Signer:
    """The key that the journal named last. A rotation that a crash cut off is finished, or undone if it named none."""
    current = keys.current_key(view)
    if current is None:
        return next(iter(signers.values()))
    at = next((path for path, signer in signers.items() if signer.public.id == current.id), None)
    if at is None:
        raise StorageDamaged(f"{home.signing_key} is not the one that this journal names; {_RESTORE_KEY}")
    if at == home.next_key:
        _take_over(home)
    elif home.next_key in signers:
        home.next_key.unlink()
    return signers[at]


def _take_over(home: Home) -> None:
    os.replace(home.next_key, home.signing_key)
    sync_directory(home.signing_key.parent)


def _kept_public(home: Home, id_: str) -> str | None:
    """The bytes of a key that the journal does not hold, from what lies here; None if that is another one."""
    try:
        lying = msgspec.json.decode(home.public_keys.read_bytes(), type=KeySet).keys
        return next((key.public for key in lying if key.id == id_ == key_id(base64.b64decode(key.public))), None)
    except (OSError, ValueError):
        return None


def _operator() -> Principal:
    """Who works on a home itself, not through a token."""
    return Principal(token=None, person=os.environ.get("USER") or "operator", role=Role.ADMIN)


def _admin() -> str:
    return os.environ.get("USER") or "admin"


def _tidy(home: Home, blobs: LocalBlobs) -> None:
    """Remove what an earlier process left half done; none runs now, because this one holds the journal."""
    blobs.drop_stale_parts(time.time())
    for leftover in home.staging.glob("*.parquet"):
        leftover.unlink(missing_ok=True)


def _begin(registry: Registry, home: Home, signer: Signer, draw_secret: bytes) -> None:
    """The first entry. The admin token is on disk before it is valid, never the other way round."""
    id_, secret = new_secret(Role.ADMIN)
    write_durably(home.admin_token, secret.encode() + b"\n")
    expires_at = (datetime.now(UTC) + timedelta(days=ADMIN_DAYS)).isoformat(timespec="seconds")
    events: list[AnyEvent] = [
        RegistryCreated(
            registry=secrets.token_hex(16),
            key=signer.public.id,
            draw_commitment=sha256_hex(draw_secret),
            public=signer.public.public,
        ),
        TokenCreated(
            id=id_,
            role=Role.ADMIN,
            person=_admin(),
            secret_sha256=sha256_hex(secret.encode()),
            expires_at=expires_at,
        ),
    ]
    registry.execute(SYSTEM, partial(_happened, outcome=Outcome(None, events)))


def _happened(context: Context, outcome: Outcome) -> Outcome:
    return outcome
