"""Keys come, are replaced and are revoked, and what was signed stays or stops being believed accordingly."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from registry_under_test import ADMIN, CONSUMER, MANAGER, NAME, Bench, bench_in

from registry.approval.attestation import Signer
from registry.approval.keyring import read_keys
from registry.approval.verification import lacking, open_statement, read_claim
from registry.commands import keys, tokens, versions
from registry.commands.context import Context
from registry.errors import AlreadyExists, Conflict, Forbidden, InvalidRequest, NotFound, StorageDamaged
from registry.events import RegistryCreated, chain_hash, decode_entry, encode_entry
from registry.opening import open_registry, rebuild, rotate_key
from registry.records import AddKey, CreateToken, Envelope, KeySet, PublicKey, Revoke, Role
from registry.settings import Home
from registry.storage.files import write_durably

pytestmark = pytest.mark.slow

MINE = Signer.generate()


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter()
        request = CreateToken(role=Role.RELEASE_MANAGER, person=MANAGER.person)
        made.run(ADMIN, tokens.create, request=request)
        yield made


def listed(bench: Bench) -> KeySet:
    return bench.registry.ask(CONSUMER, lambda context: keys.key_set(context.view, context.services.signer))


def approval(bench: Bench, ref: str = f"{NAME}@approved") -> Envelope:
    found = bench.registry.ask(CONSUMER, lambda context: versions.resolve(context, ref)).attestation
    assert found is not None
    return found


def problems(bench: Bench, envelope: Envelope) -> list[str]:
    """What a consumer with the present keys finds wrong with the signature."""
    known = read_keys(msgspec.json.encode(listed(bench)))
    try:
        opened = open_statement(msgspec.json.encode(envelope), known)
    except ValueError as error:
        return [str(error)]
    claim = read_claim(opened.document)
    return list(lacking(known, opened.signed, claim.roles, claim.issued))


def add(bench: Bench, signer: Signer = MINE, person: str = MANAGER.person) -> PublicKey:
    request = AddKey(public=signer.public.public, person=person)
    answer: PublicKey = bench.run(ADMIN, keys.add, request=request).value
    return answer


def revoke(bench: Bench, id_: str) -> PublicKey:
    answer: PublicKey = bench.run(ADMIN, keys.revoke, id_=id_, request=Revoke(reason="laptop stolen")).value
    return answer


def rotated(bench: Bench) -> str:
    """Stop, replace the key, start; the id of the new key."""
    bench.close()
    rotate_key(bench.home)
    bench.registry = open_registry(bench.home).registry
    return bench.registry.services.signer.public.id


# -- the gate's key -----------------------------------------------------------------------------------------------


def test_a_new_registry_lists_its_one_key_with_roles_and_since_when(bench: Bench) -> None:
    (key,) = listed(bench).keys
    assert (key.id, key.roles) == (bench.registry.services.signer.public.id, ("gate", "checkpoint"))
    assert key.valid_from is not None and (key.valid_until, key.revoked_at) == (None, None)
    assert msgspec.json.decode(bench.home.public_keys.read_bytes(), type=KeySet) == listed(bench)


def test_what_a_replaced_key_signed_still_verifies_and_the_new_one_signs(bench: Bench) -> None:
    first = bench.approvable(1)
    bench.promote(first)
    old, before = bench.registry.services.signer.public.id, approval(bench)
    pem = bench.home.signing_key.read_bytes()
    new = rotated(bench)
    assert new != old and bench.home.signing_key.read_bytes() != pem and not bench.home.next_key.exists()
    assert [(key.id, key.valid_until is None) for key in listed(bench).keys] == [(old, False), (new, True)]
    assert msgspec.json.decode(bench.home.public_keys.read_bytes(), type=KeySet) == listed(bench)
    assert approval(bench) == before and problems(bench, before) == []
    bench.promote(bench.approvable(2))
    assert [one.keyid for one in approval(bench).signatures] == [new] and problems(bench, approval(bench)) == []
    assert bench.tables() == bench.rebuilt()


def test_keys_can_be_replaced_again_and_again(bench: Bench) -> None:
    bench.promote(bench.approvable(1))
    ids = [bench.registry.services.signer.public.id, *(rotated(bench) for _ in range(3))]
    assert [key.id for key in listed(bench).keys] == ids and len(set(ids)) == 4
    assert problems(bench, approval(bench)) == []


def test_a_retired_key_can_not_sign_what_is_dated_later(bench: Bench) -> None:
    signer = bench.registry.services.signer
    bench.promote(bench.approvable(1))
    rotated(bench)
    payload = base64.b64decode(approval(bench).payload)
    issued = read_claim(msgspec.json.decode(payload)).issued.isoformat().replace("+00:00", "Z").encode()
    later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat().replace("+00:00", "Z").encode()
    assert payload.count(issued) == 2  # timeVerified and issued
    assert "was no longer valid" in problems(bench, signer.sign(payload.replace(issued, later)))[0]


def test_a_running_service_keeps_its_key(bench: Bench) -> None:
    with pytest.raises(StorageDamaged, match="in use by another"):
        rotate_key(bench.home)
    assert not bench.home.next_key.exists() and len(listed(bench).keys) == 1


def test_without_a_journal_there_is_no_key_to_replace(home: Home) -> None:
    with pytest.raises(InvalidRequest, match=r"no journal in .*TUNEGATE_HOME"):
        rotate_key(home)
    assert not home.root.exists()
    home.signing_key.parent.mkdir(parents=True)
    home.journal.write_bytes(b"")
    with pytest.raises(Conflict, match="never started"):
        rotate_key(home)
    with bench_in(home.root) as bench:
        assert len(listed(bench).keys) == 1


@pytest.mark.parametrize("lost", ["signing.pem", "public.json too"])
def test_a_lost_key_is_replaced_and_what_it_signed_stays_good(home: Home, lost: str) -> None:
    with bench_in(home.root) as bench:
        bench.create_adapter()
        bench.promote(bench.approvable(1))
    home.signing_key.unlink()
    if lost == "public.json too":
        home.public_keys.unlink()
    with pytest.raises(StorageDamaged, match="tunegate keys rotate"):
        open_registry(home)
    rotate_key(home)
    with bench_in(home.root) as bench:
        assert problems(bench, approval(bench)) == [] and len(listed(bench).keys) == 2


def test_a_loss_of_the_entry_that_named_the_new_key_is_healed_by_another_rotation(home: Home) -> None:
    with bench_in(home.root) as bench:
        bench.create_adapter()
    begin = home.journal.stat().st_size
    rotate_key(home)
    with home.journal.open("r+b") as file:
        file.truncate(begin)
    rebuild(home, accept_loss=True)
    with pytest.raises(StorageDamaged, match=r"not the one that this journal names.*keys rotate"):
        open_registry(home)
    rotate_key(home)
    with bench_in(home.root) as bench:
        assert [key.valid_until is None for key in listed(bench).keys] == [False, True]


# -- crashes while it is replaced ---------------------------------------------------------------------------------


def test_a_key_that_the_journal_does_not_name_is_left_out(bench: Bench) -> None:
    """Killed between the new key's file and the journal."""
    before = bench.registry.services.signer.public.id
    bench.close()
    write_durably(bench.home.next_key, Signer.generate().to_pem())
    bench.registry = open_registry(bench.home).registry
    assert bench.registry.services.signer.public.id == before and not bench.home.next_key.exists()


def test_a_key_that_the_journal_names_takes_its_place_at_the_next_start(bench: Bench) -> None:
    """Killed between the journal and the rename."""
    old = bench.home.signing_key.read_bytes()
    new = rotated(bench)
    bench.close()
    bench.home.signing_key.rename(bench.home.next_key)
    bench.home.signing_key.write_bytes(old)
    bench.registry = open_registry(bench.home).registry
    assert bench.registry.services.signer.public.id == new
    assert bench.home.signing_key.read_bytes() != old and not bench.home.next_key.exists()


def test_a_key_file_of_no_key_closes_the_home(bench: Bench) -> None:
    bench.close()
    bench.home.next_key.write_bytes(b"-----BEGIN NOTHING-----")
    with pytest.raises(StorageDamaged, match=r"signing.next.pem cannot be read"):
        open_registry(bench.home)
    bench.home.next_key.unlink()
    bench.registry = open_registry(bench.home).registry


def test_a_clock_that_went_back_dates_nothing_before_the_key(bench: Bench) -> None:
    bench.registry._clock = lambda: datetime.now(UTC) - timedelta(days=2)
    bench.promote(bench.approvable(1))
    assert problems(bench, approval(bench)) == []


# -- people's keys ------------------------------------------------------------------------------------------------


def test_a_release_managers_key_is_listed_with_whose_it_is(bench: Bench) -> None:
    added = add(bench)
    assert (added.person, added.roles) == (MANAGER.person, ("release-manager",))
    assert listed(bench).keys[-1] == added
    head = bench.registry.journal.head
    assert add(bench) == added and bench.registry.journal.head == head, "the same again changes nothing"
    assert bench.tables() == bench.rebuilt()


def test_only_a_key_and_only_of_a_release_manager_is_added(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="nobody called 'Rita'"):
        add(bench, person="Rita")
    for text in ("A" * 44, "!" * 44, "A" * 42 + "B=", base64.b64encode(b"x" * 33).decode()):
        with pytest.raises(InvalidRequest, match="32 bytes"):
            bench.run(ADMIN, keys.add, request=AddKey(public=text, person=MANAGER.person))
    with pytest.raises(AlreadyExists, match="for another use"):
        add(bench, bench.registry.services.signer)
    assert len(listed(bench).keys) == 1


# -- revoking -----------------------------------------------------------------------------------------------------


def test_nothing_a_revoked_key_signed_verifies_until_it_is_promoted_anew(bench: Bench) -> None:
    number = bench.approvable(1)
    bench.promote(number)
    old = bench.registry.services.signer.public.id
    with pytest.raises(Conflict, match=r"this key signs now.*keys rotate"):
        revoke(bench, old)
    rotated(bench)
    assert bench.promote(number).counter == 1, "its approval is good"
    assert revoke(bench, old).revoked_reason == "laptop stolen"
    assert "was revoked" in problems(bench, approval(bench))[0]
    again = bench.promote(number)
    assert (again.number, again.counter) == (number, 2) and problems(bench, approval(bench)) == []
    assert bench.promote(number).counter == 2
    assert bench.tables() == bench.rebuilt()


def test_revoking_again_changes_nothing_and_a_revoked_key_never_comes_back(bench: Bench) -> None:
    id_ = add(bench).id
    first = revoke(bench, id_)
    head = bench.registry.journal.head
    assert revoke(bench, id_) == first and bench.registry.journal.head == head
    with pytest.raises(AlreadyExists, match="or as revoked"):
        add(bench)
    with pytest.raises(NotFound, match="does not exist here"):
        revoke(bench, "0" * 64)


# -- expiry -------------------------------------------------------------------------------------------------------


def test_an_approval_is_given_anew_once_half_its_time_is_over(bench: Bench) -> None:
    number = bench.approvable(1)
    bench.promote(number)
    at = datetime.now(UTC)
    claim = read_claim(msgspec.json.decode(base64.b64decode(approval(bench).payload)))
    assert claim.expires is not None and claim.expires - claim.issued == timedelta(days=365)
    bench.registry._clock = lambda: at + timedelta(days=182)
    assert bench.promote(number).counter == 1
    bench.registry._clock = lambda: at + timedelta(days=183)
    assert bench.promote(number).counter == 2
    renewed = read_claim(msgspec.json.decode(base64.b64decode(approval(bench).payload)))
    assert renewed.expires is not None and renewed.expires - at > timedelta(days=540)
    assert bench.tables() == bench.rebuilt()


@pytest.mark.parametrize(("days", "fits"), [("30", True), ("0", False), ("x", False), ("-1", False), ("1.5", False)])
def test_how_long_an_approval_is_good_is_a_setting(
    home: Home, monkeypatch: pytest.MonkeyPatch, days: str, fits: bool
) -> None:
    monkeypatch.setenv("TUNEGATE_APPROVAL_DAYS", days)
    if not fits:
        with pytest.raises(InvalidRequest, match=r"TUNEGATE_APPROVAL_DAYS.*whole number"):
            open_registry(home)
        return
    with bench_in(home.root) as bench:
        bench.create_adapter()
        bench.promote(bench.approvable(1))
        claim = read_claim(msgspec.json.decode(base64.b64decode(approval(bench).payload)))
        assert claim.expires is not None and claim.expires - claim.issued == timedelta(days=30)


# -- homes from before --------------------------------------------------------------------------------------------


def old_home(home: Home) -> None:
    """As it was when `registry.created` did not hold the key's bytes, and a key file had three fields."""
    open_registry(home).registry.close()
    (line,) = home.journal.read_bytes().splitlines()
    entry = decode_entry(line[65:])
    created = entry.events[0]
    assert isinstance(created, RegistryCreated)
    entry = msgspec.structs.replace(entry, events=[msgspec.structs.replace(created, public=None), *entry.events[1:]])
    body = encode_entry(entry).replace(b',"public":null', b"")
    assert b"public" not in body
    home.journal.write_bytes(chain_hash(body).encode() + b" " + body + b"\n")
    home.catalog.unlink()
    (key,) = msgspec.json.decode(home.public_keys.read_bytes(), type=KeySet).keys
    plain = {name: getattr(key, name) for name in ("id", "algorithm", "public")}
    home.public_keys.write_bytes(msgspec.json.encode({"keys": [plain]}))


def test_a_home_whose_journal_does_not_hold_its_first_key_goes_on(home: Home) -> None:
    old_home(home)
    with bench_in(home.root) as bench:
        assert len(listed(bench).keys) == 1
        bench.create_adapter()
        bench.promote(bench.approvable(1))
    rotate_key(home)
    with bench_in(home.root) as bench:
        assert len(listed(bench).keys) == 2 and problems(bench, approval(bench)) == []


@pytest.mark.parametrize("file", ["none", "of another key", "unreadable", "no base64"])
def test_the_bytes_of_a_lost_first_key_are_not_taken_from_a_wrong_file(home: Home, file: str) -> None:
    old_home(home)
    public = Signer.from_pem(home.signing_key.read_bytes()).public
    for case, key in (("of another key", MINE.public.public), ("no base64", "!")):
        if file == case:
            home.public_keys.write_bytes(
                msgspec.json.encode(KeySet(keys=[msgspec.structs.replace(public, public=key)]))
            )
    if file == "none":
        home.public_keys.unlink()
    if file == "unreadable":
        home.public_keys.write_bytes(b"\xff")
    rotate_key(home)
    with bench_in(home.root) as bench:
        assert len(listed(bench).keys) == 1, "only the new key's bytes are known"


def test_an_admin_of_one_project_manages_nobody_s_keys(bench: Bench) -> None:
    added = add(bench)
    scoped = ADMIN._replace(scope="team-b")
    with pytest.raises(Forbidden, match="not only for 'team-b'"):
        bench.run(scoped, keys.revoke, id_=added.id, request=Revoke(reason="mine now"))
    with pytest.raises(Forbidden, match="not only for 'team-b'"):
        bench.run(scoped, keys.add, request=AddKey(public=Signer.generate().public.public, person=MANAGER.person))
    assert [key.revoked_at for key in listed(bench).keys] == [None, None]


def test_whose_a_key_is_shows_only_where_that_person_has_something_to_do(bench: Bench) -> None:
    def shown(scope: str | None) -> list[str | None]:
        reader = CONSUMER._replace(scope=scope)
        found = bench.registry.ask(reader, _keys_of)
        read_keys(msgspec.json.encode(found))  # its checksum is that of what is shown
        return [key.person for key in found.keys]

    for person, scope in (("bea", "team-b"), ("bob", "team-b/bot"), ("ann", "team-a/bot")):
        made = CreateToken(role=Role.RELEASE_MANAGER, person=person, scope=scope)
        bench.run(ADMIN, tokens.create, request=made)
        add(bench, Signer.generate(), person)
    add(bench)
    assert shown(None) == [None, "bea", "bob", "ann", MANAGER.person]
    assert shown("team-b") == [None, "bea", "bob", None, MANAGER.person], "whose token has no scope works everywhere"
    assert shown("team-b/bot") == [None, "bea", "bob", None, MANAGER.person]
    assert shown("team-b/other") == [None, "bea", None, None, MANAGER.person]
    assert shown("team") == [None, None, None, None, MANAGER.person]
    for scope in (None, "team"):
        ids = [key.id for key in bench.registry.ask(ADMIN._replace(scope=scope), _keys_of).keys]
        assert ids == [key.id for key in listed(bench).keys], "every key is there, to verify with"


def _keys_of(context: Context) -> KeySet:
    return keys.key_set(context.view, context.services.signer, context.principal)
