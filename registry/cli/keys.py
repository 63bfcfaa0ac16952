"""tunegate keys, countersign: what approvals are verified with, and the second signature on one."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.markup import escape

from registry import settings
from registry.approval.attestation import Signer
from registry.approval.keyring import GATE, KEYS_TYPE, read_public_pem
from registry.approval.verification import Claim, lacking, open_statement, read_claim
from registry.cli.console import connected, console, leave, options, show
from registry.cli.pulling import key_file, parse_keys
from registry.errors import InvalidRequest
from registry.names import parse_reference
from registry.opening import rotate_key
from registry.records import AddKey, Countersign, Proposal, PublicKey
from registry.storage.files import write_durably

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(invoke_without_command=True)
@click.option("--to", "target", type=FILE, help="Write them to this file, for `tunegate verify --keys`.")
@click.pass_context
def keys(context: click.Context, target: Path | None) -> None:
    """The registry's public keys: which there are, what each may sign, and since when."""
    if context.invoked_subcommand is not None:
        return
    with connected() as client:
        found = client.keys()
    if target:
        write_durably(target, key_file(found), mode=0o644)
    lines = [_line(key) for key in found.keys]
    show(found, f"{len(found.keys)} keys written to {escape(str(target))}" if target else "\n".join(lines))


@keys.command()
@click.argument("file", type=FILE)
def new(file: Path) -> None:
    """Make a private key in FILE and its public half in FILE.pub: for a release manager, or a root."""
    public_file = file.with_name(f"{file.name}.pub")
    for path in (file, public_file):
        if path.exists():
            raise InvalidRequest(f"{path} exists; give a new name, so that no key is lost")
    signer = Signer.generate()
    write_durably(file, signer.to_pem())
    write_durably(public_file, signer.public_pem(), mode=0o644)
    show(signer.public, f"{escape(str(file))} is a secret; {escape(str(public_file))} is for others")


@keys.command()
@click.argument("file", type=FILE)
@click.option("--person", required=True, help="Whose key it is, spelled as in their release-manager token.")
def add(file: Path, person: str) -> None:
    """Register a release manager's public key (PEM) for second signatures."""
    try:
        public = read_public_pem(file.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidRequest(f"{file} is no public key: {error}; `tunegate keys new` makes one, in FILE.pub") from None
    with connected() as client:
        added = client.add_key(AddKey(public=base64.b64encode(public).decode(), person=person))
    show(added, f"key {added.id} of {escape(person)} may sign as {', '.join(added.roles)}")


@keys.command()
@click.argument("key_id")
@click.option("--reason", required=True)
def revoke(key_id: str, reason: str) -> None:
    """Believe nothing any more that a key signed, whenever it did."""
    with connected() as client:
        found = client.revoke_key(key_id, reason)
    show(found, f"key {found.id} is revoked; give out the new key file, and promote anew what it had signed")


@keys.command()
def rotate() -> None:
    """Replace the signing key; the service must not run. What the old key signed stays valid."""
    found = rotate_key(settings.home())
    current = next(key for key in reversed(found.keys) if GATE in key.roles)
    show(found, f"the gate signs with key {current.id} now; give out the new key file: `tunegate keys --to FILE`")


@keys.command()
@click.argument("file", type=FILE)
@click.option("--root", "root_file", required=True, type=FILE, help="The private root key, from `tunegate keys new`.")
@click.option("--to", "target", required=True, type=FILE)
def sign(file: Path, root_file: Path, target: Path) -> None:
    """Sign a key file with an offline root key, for `tunegate verify --root-key`."""
    signer = _private_key(root_file)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}") from None
    trusted = parse_keys(data, str(file))
    write_durably(target, msgspec.json.encode(signer.sign(data, KEYS_TYPE)), mode=0o644)
    show({"keys": [key.id for key in trusted]}, f"{len(trusted)} keys are signed in {escape(str(target))}")


@click.command()
@click.argument("ref")
@click.option("--key", "private_file", required=True, type=FILE, help="Your private key, from `tunegate keys new`.")
@click.option("--yes", is_flag=True, help="Sign without asking.")
def countersign(ref: str, private_file: Path, yes: bool) -> None:
    """Sign a proposed approval (`support-bot@approved`) with your own key; with it the alias moves."""
    parsed = parse_reference(ref)
    if parsed.alias is None:
        raise InvalidRequest(f"{ref!r} names no alias; give one, such as {parsed.adapter}@approved")
    signer = _private_key(private_file)
    with connected() as client:
        waiting = client.proposal(parsed.adapter, parsed.alias)
        claim, payload = _read_proposal(waiting, key_file(client.keys()))
        _say(claim, waiting)
        if not yes and not click.confirm("Sign this?", err=True):
            console().print("not signed")
            leave(1)
        signature = signer.signature(payload)
        request = Countersign(keyid=signature.keyid, sig=signature.sig, alias=claim.alias)
        moved = client.countersign(claim.ref, request)
    show(moved, f"{moved.adapter}@{moved.alias} is now {moved.ref} ({moved.digest[:19]}…)")


def _read_proposal(waiting: Proposal, keys_data: bytes) -> tuple[Claim, bytes]:
    """What the proposal says and its bytes, if the gate signed it: never sign what merely came over the wire."""
    trusted = parse_keys(keys_data, options().url)
    try:
        opened = open_statement(msgspec.json.encode(waiting.attestation), trusted)
        claim = read_claim(opened.document)
    except ValueError as error:
        raise InvalidRequest(f"the proposal is not to be signed: {error}") from None
    if problems := list(lacking(trusted, opened.signed, (GATE,), claim.issued)):
        raise InvalidRequest(f"the proposal is not to be signed: {problems[0]}")
    if claim.expires is not None and claim.expires <= datetime.now(UTC):
        raise InvalidRequest(f"the proposal expired at {claim.expires}; promote {claim.ref} again")
    return claim, base64.b64decode(waiting.attestation.payload)


def _say(claim: Claim, waiting: Proposal) -> None:
    out = console()
    out.print(f"[bold]{claim.adapter}@{claim.alias}[/] is to become [bold]{claim.ref}[/], move {claim.counter}")
    out.print(f"  manifest sha256:{claim.manifest}")
    out.print(f"  base     {escape(claim.base.get('id', ''))} {claim.base.get('digest', '')}")
    out.print(f"  proposed by {escape(waiting.by)} at {waiting.at[:19]}: {escape(waiting.reason)}")
    out.print(f"  the gate says {'go' if claim.passed else 'nothing that approves it'}; expires {claim.expires}")


def _private_key(file: Path) -> Signer:
    try:
        return Signer.from_pem(file.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidRequest(f"{file} is no private key to sign with: {error}; `tunegate keys new` makes one") from None


def _line(key: PublicKey) -> str:
    until = f" until {key.valid_until[:19]}" if key.valid_until else ""
    revoked = f"  [red]revoked {key.revoked_at[:19]}: {escape(key.revoked_reason or '')}[/]" if key.revoked_at else ""
    whose = f"  {escape(key.person)}" if key.person else ""
    return f"{key.id}  {', '.join(key.roles)}  from {(key.valid_from or '')[:19]}{until}{whose}{revoked}"


COMMANDS = (keys, countersign)
