"""Nobody changes, drops or adds an entry of the journal without contradicting what was signed about it."""

import base64
import json
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import as_lines, make_entries
from registry_under_test import bench_in

from registry.approval.attestation import Signer
from registry.approval.keyring import Key, read_keys
from registry.audit.checkpoint import Checkpoint, open_checkpoint, origin_of, sign_checkpoint
from registry.audit.log import AuditLog, audit
from registry.audit.merkle import consistency_holds, inclusion_holds, leaf_hash
from registry.errors import InvalidRequest, StorageDamaged, Unavailable
from registry.events import GENESIS, AliasMoved, AnyEvent, Entry, RegistryCreated, chain_hash, encode_entry
from registry.settings import Home
from registry.storage.journal import Line, MemoryJournal, read_chain

CREATED = RegistryCreated(registry="1f0c", key="k", draw_commitment="0" * 64)


def journal_of(n: int) -> MemoryJournal:
    journal = MemoryJournal()
    first = make_entries(1, events=[CREATED])
    journal.append(as_lines([*first, *make_entries(n - 1, after=first[0])]))
    return journal


# -- the tree of a running journal --------------------------------------------------------------------------------


def test_checkpoint_is_of_every_entry_there_is() -> None:
    journal = journal_of(3)
    log = AuditLog(journal)
    first = log.checkpoint()
    assert (first.origin, first.size) == ("tunegate.dev/registry/1f0c", 3)
    journal.append(as_lines(make_entries(4, after=last(journal))))
    second = log.checkpoint()
    assert second.size == 7 and second.root != first.root
    assert second == AuditLog(journal).checkpoint(), "caught up or built anew, it is one tree"


def test_a_leaf_is_the_entry_as_auditors_are_shown_it() -> None:
    journal = journal_of(5)
    log = AuditLog(journal)
    for line in journal.read():
        proof = log.inclusion(line.entry.seq)
        assert bytes.fromhex(proof.leaf) == leaf_hash(line.body)
        hashes = [bytes.fromhex(one) for one in proof.hashes]
        root = log.checkpoint().root
        assert inclusion_holds(leaf_hash(line.body), line.entry.seq - 1, 5, hashes, root)
        assert bytes.fromhex(proof.root) == root


def test_proofs_are_of_the_sizes_that_were_asked_for() -> None:
    log = AuditLog(journal_of(9))
    for size in range(1, 10):
        proof = log.inclusion(1, size)
        shown = log.consistency(size)
        assert proof.size == size and (shown.older, shown.newer) == (size, 9)
        assert shown.older_root == proof.root
        assert consistency_holds(
            size,
            bytes.fromhex(shown.older_root),
            9,
            log.checkpoint().root,
            [bytes.fromhex(one) for one in shown.hashes],
        )
        assert log.consistency(1, size).newer_root == proof.root


@pytest.mark.parametrize(("seq", "size"), [(0, None), (4, None), (3, 2), (1, 4)])
def test_entry_that_is_not_in_the_tree_has_no_proof(seq: int, size: int | None) -> None:
    with pytest.raises(InvalidRequest, match="ask for"):
        AuditLog(journal_of(3)).inclusion(seq, size)


@pytest.mark.parametrize(("older", "newer"), [(0, None), (4, None), (3, 2), (1, 4)])
def test_sizes_that_the_journal_never_had_have_no_proof(older: int, newer: int | None) -> None:
    with pytest.raises(InvalidRequest):
        AuditLog(journal_of(3)).consistency(older, newer)


def test_whoever_asks_while_the_tree_is_built_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.audit.log._WAIT_SECONDS", 0.01)
    journal, reading, done = journal_of(3), threading.Event(), threading.Event()

    class Slow(MemoryJournal):
        head = journal.head

        def read(self, after: int = 0) -> Iterator[Line]:
            reading.set()
            assert done.wait(20)
            yield from journal.read(after)

    log = AuditLog(Slow())
    builder = threading.Thread(target=log.checkpoint)
    builder.start()
    assert reading.wait(20)
    with pytest.raises(Unavailable, match="being built"):
        log.checkpoint()
    done.set()
    builder.join(20)
    assert log.checkpoint().size == 3


def test_failed_reading_leaves_a_tree_that_can_be_caught_up() -> None:
    journal = journal_of(5)

    class Failing(MemoryJournal):
        head, fails = journal.head, True

        def read(self, after: int = 0) -> Iterator[Line]:
            for line in journal.read(after):
                if self.fails and line.entry.seq == 3:
                    raise OSError("input/output error")
                yield line

    failing = Failing()
    log = AuditLog(failing)
    with pytest.raises(OSError):
        log.checkpoint()
    failing.fails = False
    assert log.checkpoint() == AuditLog(journal).checkpoint()


def last(journal: MemoryJournal) -> Entry:
    return list(journal.read())[-1].entry


# -- a whole journal ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A registry whose alias moved three times."""
    with bench_in(tmp_path_factory.mktemp("audit") / "home") as bench:
        bench.create_adapter()
        bench.promote(bench.approvable(1))
        bench.promote(bench.approvable(2))
        bench.rollback(1)
        return bench.home


@pytest.fixture(scope="module")
def signer(home: Home) -> Signer:
    return Signer.from_pem(home.signing_key.read_bytes())


@pytest.fixture(scope="module")
def moved(home: Home, signer: Signer) -> tuple[list[Line], list[Key], str]:
    """Its journal, its public keys, and a checkpoint of it."""
    lines, journal = list(read_chain(home.journal)), MemoryJournal()
    journal.append(lines)
    note = sign_checkpoint(AuditLog(journal).checkpoint(), base64.b64decode(signer.public.public), signer.sign_bytes)
    return lines, read_keys(home.public_keys.read_bytes()), note


def rewritten(lines: Sequence[Line], change: Any) -> Iterator[Line]:
    """The journal after `change` of its entries, the chain made whole again, as somebody with the disk could."""
    prev, seq = GENESIS, 0
    for line in lines:
        for entry in change(line.entry):
            seq += 1
            made = msgspec.structs.replace(entry, seq=seq, prev=prev)
            body = encode_entry(made)
            prev = chain_hash(body)
            yield Line(prev, body, made)


def with_event(kind: type[AnyEvent], nth: int, **changes: Any) -> Any:
    """A change of the nth event of a type."""
    met = 0

    def change(entry: Entry) -> list[Entry]:
        nonlocal met
        events = []
        for event in entry.events:
            met += isinstance(event, kind)
            hit = isinstance(event, kind) and met == nth
            events.append(msgspec.structs.replace(event, **changes) if hit else event)
        return [msgspec.structs.replace(entry, events=events)]

    return change


def checkpoint_of(note: str, keys: Sequence[Key]) -> Checkpoint:
    return open_checkpoint(note, [key.public for key in keys])


def test_a_journal_that_nobody_touched_verifies(moved: tuple[list[Line], list[Key], str]) -> None:
    lines, keys, note = moved
    found = audit(lines, keys, checkpoint_of(note, keys))
    assert found.problems == [] and found.approvals == 3
    assert found.head == (lines[-1].entry.seq, lines[-1].hash)
    assert found.root == checkpoint_of(note, keys).root


def test_a_journal_may_have_grown_since_the_checkpoint(moved: tuple[list[Line], list[Key], str]) -> None:
    lines, keys, _ = moved
    journal = MemoryJournal()
    journal.append(lines[:10])
    assert audit(lines, keys, AuditLog(journal).checkpoint()).problems == []


def test_only_entries_that_continue_the_chain_are_read(home: Home, tmp_path: Path) -> None:
    lines = home.journal.read_bytes().splitlines(keepends=True)
    copy = tmp_path / "journal.log"
    for kept, problem in (
        ([*lines[:3], *lines[4:]], "does not continue entry 3"),
        ([*lines[:3], lines[2], *lines[3:]], "does not continue entry 3"),
        ([*lines[:3], b"\n", *lines[3:]], "after number 3 does not verify"),
    ):
        copy.write_bytes(b"".join(kept))
        with pytest.raises(StorageDamaged, match=problem):
            list(read_chain(copy))
    copy.write_bytes(b"".join(lines)[:-1])
    assert len(list(read_chain(copy))) == len(lines) - 1, "a torn tail is no damage"


@pytest.mark.parametrize("nth", [0, 5, -1])
def test_an_entry_that_was_rewritten_with_its_whole_chain_contradicts_the_checkpoint(
    moved: tuple[list[Line], list[Key], str], nth: int
) -> None:
    lines, keys, note = moved
    target = lines[nth].entry.seq

    def change(entry: Entry) -> list[Entry]:
        return [msgspec.structs.replace(entry, at="2020-01-01T00:00:00.000000Z") if entry.seq == target else entry]

    forged = list(rewritten(lines, change))
    assert audit(forged, keys).problems == [], "its chain and its approvals are in order"
    assert "they were rewritten" in only(audit(forged, keys, checkpoint_of(note, keys)).problems)


def test_an_entry_left_out_or_put_in_contradicts_the_checkpoint(moved: tuple[list[Line], list[Key], str]) -> None:
    lines, keys, note = moved
    shorter = list(rewritten(lines, lambda entry: [] if entry.seq == 5 else [entry]))
    assert "its end is lost" in only(audit(shorter, keys, checkpoint_of(note, keys)).problems)
    longer = list(rewritten(lines, lambda entry: [entry, entry] if entry.seq == 5 else [entry]))
    assert "they were rewritten" in only(audit(longer, keys, checkpoint_of(note, keys)).problems)


def test_a_journal_whose_end_was_cut_off_contradicts_the_checkpoint(
    moved: tuple[list[Line], list[Key], str],
) -> None:
    lines, keys, note = moved
    assert "its end is lost" in only(audit(lines[:-1], keys, checkpoint_of(note, keys)).problems)
    assert audit(lines[:-1], keys).problems == []


def test_a_checkpoint_of_another_registry_is_refused(moved: tuple[list[Line], list[Key], str]) -> None:
    lines, keys, note = moved
    other = checkpoint_of(note, keys)._replace(origin=origin_of("other"))
    assert "is of the journal tunegate.dev/registry/other" in only(audit(lines, keys, other).problems)
    assert "this one is of no registry" in only(audit([], keys, other._replace(size=0)).problems)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"number": 2}, "carries an approval of support-bot/1"),
        ({"alias": "canary"}, "carries an approval of support-bot/1 as move 1 of support-bot@approved"),
        ({"adapter": "other-bot"}, "carries an approval of support-bot/1"),
        ({"digest": "sha256:" + "0" * 64}, "carries an approval of support-bot/1"),
        ({"counter": 0}, "counts back"),
    ],
)
def test_an_approval_of_something_else_is_found(
    moved: tuple[list[Line], list[Key], str], changes: dict[str, Any], problem: str
) -> None:
    lines, keys, _ = moved
    problems = audit(rewritten(lines, with_event(AliasMoved, 1, **changes)), keys).problems
    assert any(problem in one for one in problems), problems


def test_an_approval_without_a_good_signature_is_found(moved: tuple[list[Line], list[Key], str]) -> None:
    lines, keys, _ = moved
    envelope = next(event for line in lines for event in line.entry.events if isinstance(event, AliasMoved)).attestation
    wrong = base64.b64encode(bytes(64)).decode()
    forged = msgspec.structs.replace(
        envelope, signatures=[msgspec.structs.replace(one, sig=wrong) for one in envelope.signatures]
    )
    problems = audit(rewritten(lines, with_event(AliasMoved, 2, attestation=forged)), keys).problems
    assert "the signature does not match" in only(problems)
    assert len(audit(lines, []).problems) == 3, "without keys nothing is believed"


def test_a_signed_statement_that_the_gate_did_not_pass_is_no_approval(
    moved: tuple[list[Line], list[Key], str], signer: Signer
) -> None:
    lines, keys, _ = moved
    envelope = next(event for line in lines for event in line.entry.events if isinstance(event, AliasMoved)).attestation
    document = json.loads(base64.b64decode(envelope.payload))
    document["predicate"]["verificationResult"] = "FAILED"
    failed = signer.sign(json.dumps(document).encode())
    problems = audit(rewritten(lines, with_event(AliasMoved, 1, attestation=failed)), keys).problems
    assert "does not say that the gate passed" in only(problems)


def test_a_key_that_may_not_approve_is_not_believed(moved: tuple[list[Line], list[Key], str]) -> None:
    lines, keys, _ = moved
    problems = audit(lines, [keys[0]._replace(roles=("checkpoint",))]).problems
    assert len(problems) == 3 and all("lacks the signature of a gate" in one for one in problems)


def test_a_revoked_key_is_a_problem_only_where_its_approval_still_stands(
    moved: tuple[list[Line], list[Key], str], signer: Signer
) -> None:
    lines, keys, _ = moved
    revoked = keys[0]._replace(revoked_at=datetime.now(UTC))
    standing = only(audit(lines, [revoked]).problems)
    assert "move 3 of support-bot@approved, the last one" in standing and "promote the version anew" in standing
    fresh = Signer.generate()
    known = [revoked, Key(fresh.public.id, base64.b64decode(fresh.public.public), ("gate",))]
    last_move = [event for line in lines for event in line.entry.events if isinstance(event, AliasMoved)][-1]
    anew = fresh.sign(base64.b64decode(last_move.attestation.payload))
    assert audit(rewritten(lines, with_event(AliasMoved, 3, attestation=anew)), known).problems == []


def test_every_signature_that_an_approval_asks_for_must_be_there(
    moved: tuple[list[Line], list[Key], str], signer: Signer
) -> None:
    lines, keys, _ = moved
    envelope = next(event for line in lines for event in line.entry.events if isinstance(event, AliasMoved)).attestation
    document = json.loads(base64.b64decode(envelope.payload))
    document["predicate"]["tunegate"]["signedBy"] = ["gate", "release-manager"]
    alone = signer.sign(json.dumps(document).encode())
    problems = audit(rewritten(lines, with_event(AliasMoved, 1, attestation=alone)), keys).problems
    assert "lacks the signature of a release-manager" in only(problems)


def only(problems: list[str]) -> str:
    assert len(problems) == 1, problems
    return problems[0]
