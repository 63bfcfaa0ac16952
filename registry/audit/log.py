"""The journal as a Merkle tree, so that it can be shown that nothing in it was changed, left out or put in between.

Leaf n of the tree, counting from 0, is entry n + 1 of the journal: the entry's canonical JSON, byte for byte as it
stands in its line after chain hash and space and before the line end, and as `/v1/audit/events` gives it as `body`.
"""

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from registry.approval.keyring import GATE, Key
from registry.approval.verification import lacking, open_statement, read_claim
from registry.audit.checkpoint import Checkpoint, origin_of
from registry.audit.merkle import Frontier, Tree, leaf_hash
from registry.errors import InvalidRequest, Unavailable
from registry.events import GENESIS, AliasMoved, Entry, RegistryCreated
from registry.records import ConsistencyProof, InclusionProof
from registry.storage.journal import Head, Journal, Line

_WAIT_SECONDS = 1.0


class AuditLog:
    """Answers about a growing journal. Thread-safe.

    The tree is built when first asked for and caught up whenever it is: an answer takes time with the entries that came
    since the last one, and with the logarithm of all.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._tree = Tree()
        self._origin = ""
        self._lock = threading.Lock()  # holds the tree while it is caught up and asked

    def checkpoint(self) -> Checkpoint:
        """The state of the journal at its last durable entry."""
        with self._caught_up() as tree:
            return Checkpoint(self._origin, tree.size, tree.root(tree.size))

    def inclusion(self, seq: int, size: int | None = None) -> InclusionProof:
        """That entry `seq` is in the tree of the first `size` entries, or of all; InvalidRequest if it is not."""
        with self._caught_up() as tree:
            size = _known(tree, size)
            if not 1 <= seq <= size:
                raise InvalidRequest(f"entry {seq} is not among the first {size}; ask for one from 1 to {size}")
            hashes = [one.hex() for one in tree.inclusion(seq - 1, size)]
            return InclusionProof(
                seq=seq, size=size, leaf=tree.leaf(seq - 1).hex(), root=tree.root(size).hex(), hashes=hashes
            )

    def consistency(self, older: int, newer: int | None = None) -> ConsistencyProof:
        """That the first `older` entries are the same in the tree of the first `newer`, or of all."""
        with self._caught_up() as tree:
            newer = _known(tree, newer)
            if not 1 <= older <= newer:
                raise InvalidRequest(f"size {older} is not between 1 and {newer}; give the older size first")
            hashes = [one.hex() for one in tree.consistency(older, newer)]
            return ConsistencyProof(
                older=older,
                older_root=tree.root(older).hex(),
                newer=newer,
                newer_root=tree.root(newer).hex(),
                hashes=hashes,
            )

    @contextlib.contextmanager
    def _caught_up(self) -> Iterator[Tree]:
        """The tree over every durable entry, for one thread at a time; Unavailable while another builds it."""
        if not self._lock.acquire(timeout=_WAIT_SECONDS):
            raise Unavailable(f"the journal's tree is being built, {self._tree.size} entries so far; ask again")
        try:
            if self._tree.size < self._journal.head.seq:
                for line in self._journal.read(after=self._tree.size):
                    self._origin = self._origin or journal_origin(line.entry)
                    self._tree.append(leaf_hash(line.body))
            yield self._tree
        finally:
            self._lock.release()


class Audited(NamedTuple):
    """What was found in a whole journal; `problems` is empty if and only if everything holds.

    root: of the tree over all entries. approvals: how many signed approvals there are, each one checked.
    """

    head: Head
    root: bytes
    approvals: int
    problems: list[str]


def audit(lines: Iterable[Line], keys: Sequence[Key], checkpoint: Checkpoint | None = None) -> Audited:
    """Check the entries of a journal, whose chain holds, against what the registry signed. Keeps no entry in memory.

    Every move of an alias must be approved by all signatures that the approval asks for, and go on counting; with a
    checkpoint, the journal must begin with exactly the entries that it was signed for.
    """
    tree, head, approvals, problems = Frontier(), Head(0, GENESIS), _Approvals(keys), list[str]()
    origin, root = "", tree.root()
    for line in lines:
        head = Head(line.entry.seq, line.hash)
        origin = origin or journal_origin(line.entry)
        tree.append(leaf_hash(line.body))
        if checkpoint is not None and tree.size == checkpoint.size:
            root = tree.root()
        for event in line.entry.events:
            if isinstance(event, AliasMoved):
                problems += [f"entry {head.seq}: {one}" for one in approvals.check(event)]
    problems += approvals.doubted.values()
    if checkpoint is not None:
        problems += _checkpoint_problems(checkpoint, Checkpoint(origin, tree.size, root))
    return Audited(head, tree.root(), approvals.count, problems)


class _Approvals:
    """The moves of aliases, as they are met.

    doubted: by alias, that what it names was approved with a key that was revoked since. An earlier move is history,
    which the revocation of a key cannot change: it is no problem once the alias was approved anew.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        self.count = 0
        self.doubted: dict[str, str] = {}
        self._keys = keys
        self._revoked = {key.id for key in keys if key.revoked_at is not None}
        self._counters: dict[str, int] = {}

    def check(self, event: AliasMoved) -> Iterator[str]:
        """What is wrong with this move, given those before."""
        self.count += 1
        alias = f"{event.adapter}@{event.alias}"
        what = f"move {event.counter} of {alias}"
        if event.counter <= (last := self._counters.get(alias, 0)):
            yield f"{what} follows move {last}: it counts back"
        self._counters[alias] = event.counter
        self.doubted.pop(alias, None)
        try:
            opened = open_statement(msgspec.json.encode(event.attestation), self._keys)
            claim = read_claim(opened.document)
        except ValueError as error:
            yield f"{what}: {error}"
            return
        missing = list(lacking(self._keys, opened.signed, (GATE, *claim.roles), claim.issued))
        if missing and opened.signed & self._revoked:
            self.doubted[alias] = f"{what}, the last one: {missing[0]}; promote the version anew"
        else:
            yield from (f"{what}: {one}" for one in missing)
        said = (claim.adapter, claim.alias, claim.counter, claim.number, f"sha256:{claim.manifest}")
        if said != (event.adapter, event.alias, event.counter, event.number, event.digest):
            yield f"{what} carries an approval of {claim.ref} as move {claim.counter} of {claim.adapter}@{claim.alias}"
        if not claim.passed:
            yield f"{what}: the signed statement does not say that the gate passed"


def _checkpoint_problems(signed: Checkpoint, found: Checkpoint) -> Iterator[str]:
    """found: origin and size of the journal, with the root that it has at the signed size."""
    if signed.origin != found.origin:
        yield f"the checkpoint is of the journal {signed.origin}, and this one is {found.origin or 'of no registry'}"
    elif signed.size > found.size:
        yield f"the checkpoint was signed for {signed.size} entries, and the journal has {found.size}: its end is lost"
    elif signed.root != found.root:
        yield f"the first {signed.size} entries are not those that the checkpoint was signed for: they were rewritten"


def journal_origin(first: Entry) -> str:
    """What the journal with this first entry is called in its checkpoints."""
    created = first.events[0] if first.events else None
    return origin_of(created.registry if isinstance(created, RegistryCreated) else "")


def _known(tree: Tree, size: int | None) -> int:
    if size is not None and size > tree.size:
        raise InvalidRequest(f"the journal has {tree.size} entries, not {size}; ask for a size up to {tree.size}")
    return tree.size if size is None else size
