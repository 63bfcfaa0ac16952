"""Entries of the journal and proofs about them."""

from registry.records.words import Record, Sha256


class JournalEntry(Record):
    """One line of the journal as auditors read it: its chain hash and its body as canonical JSON text."""

    seq: int
    hash: Sha256
    body: str


class InclusionProof(Record):
    """That the leaf of entry `seq` is in the Merkle tree of the first `size` entries (see `registry.audit.merkle`)."""

    seq: int
    size: int
    leaf: Sha256
    root: Sha256
    hashes: list[Sha256]


class ConsistencyProof(Record):
    """That the tree of the first `newer` entries begins with the tree of the first `older`."""

    older: int
    older_root: Sha256
    newer: int
    newer_root: Sha256
    hashes: list[Sha256]
