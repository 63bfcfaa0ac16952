"""A Merkle tree over a list that only grows: roots, inclusion proofs and consistency proofs. Pure.

RFC 6962, section 2.1: a leaf is hashed with 0x00 before it and a node with 0x01, so that neither passes for the other.
Hashes are 32 raw bytes. An inclusion proof shows that a leaf stands at its place in the tree of a root; a consistency
proof, that the tree of a newer root begins with all leaves of an older one, in their order.

>>> tree = Tree()
>>> for entry in (b"a", b"b", b"c"):
...     tree.append(leaf_hash(entry))
>>> inclusion_holds(leaf_hash(b"b"), 1, 3, tree.inclusion(1, 3), tree.root(3))
True
>>> consistency_holds(2, tree.root(2), 3, tree.root(3), tree.consistency(2, 3))
True
"""

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a tree: enough to append and to give the root, in memory that grows with the logarithm."""

    def __init__(self) -> None:
        self.size = 0
        self._full: list[bytes] = []  # roots of the full subtrees, largest first: one for each bit set in `size`

    def append(self, leaf: bytes) -> None:
        size = self.size
        while size & 1:
            leaf = node_hash(self._full.pop(), leaf)
            size >>= 1
        self._full.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self._full:
            return EMPTY_ROOT
        root = self._full[-1]
        for left in reversed(self._full[:-1]):
            root = node_hash(left, root)
        return root


class Tree:
    """A whole tree: 64 bytes for each leaf, and every root and proof of every size in logarithmic time."""

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]  # of each level, the roots of its full subtrees one after another

    @property
    def size(self) -> int:
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> None:
        level, index = 0, self.size
        self._levels[0] += leaf
        while index & 1:
            leaf = node_hash(self._full(level, index - 1), leaf)
            level, index = level + 1, index >> 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += leaf

    def leaf(self, index: int) -> bytes:
        """The hash of the leaf at `index`, which counts from 0."""
        return self._full(0, index)

    def root(self, size: int) -> bytes:
        """The root over the first `size` leaves."""
        return self._over(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """PATH(index, D[size]): the hashes beside the way from a leaf to the root, the leaf's own neighbour first."""
        start, end, path = 0, size, list[bytes]()
        while end - start > 1:
            middle = start + _left(end - start)
            if index < middle:
                path.append(self._over(middle, end))
                end = middle
            else:
                path.append(self._over(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, older: int, newer: int) -> list[bytes]:
        """PROOF(older, D[newer]) for 0 < older <= newer; empty where the two are one tree."""
        start, end, path = 0, newer, list[bytes]()
        while end != older:
            middle = start + _left(end - start)
            if older <= middle:
                path.append(self._over(middle, end))
                end = middle
            else:
                path.append(self._over(start, middle))
                start = middle
        if start:  # the older root itself is known to whoever asks
            path.append(self._over(start, end))
        return path[::-1]

    def _over(self, start: int, end: int) -> bytes:
        """The root over the leaves from `start` to `end`, where a subtree of the tree begins at `start`."""
        width = end - start
        if width & (width - 1) == 0:
            return self._full(width.bit_length() - 1, start // width)
        middle = start + _left(width)
        return node_hash(self._over(start, middle), self._over(middle, end))

    def _full(self, level: int, index: int) -> bytes:
        return bytes(self._levels[level][index * HASH_BYTES : (index + 1) * HASH_BYTES])


def inclusion_holds(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof shows `leaf` at `index` of the tree with this size and root (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for beside in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(beside, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, beside)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def consistency_holds(older: int, older_root: bytes, newer: int, newer_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the newer tree begins with the older one (RFC 9162, section 2.1.4.2).

    Every tree begins with the empty one, and a tree with itself: both without a proof.
    """
    if older == newer:
        return not proof and older_root == newer_root and (older > 0 or older_root == EMPTY_ROOT)
    if older == 0:
        return not proof and older_root == EMPTY_ROOT
    if not 0 < older < newer or not proof:
        return False
    path = [older_root, *proof] if older & (older - 1) == 0 else list(proof)
    place, last = older - 1, newer - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    found_older = found_newer = path[0]
    for beside in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            found_older, found_newer = node_hash(beside, found_older), node_hash(beside, found_newer)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found_newer = node_hash(found_newer, beside)
        place, last = place >> 1, last >> 1
    return last == 0 and found_older == older_root and found_newer == newer_root


def _left(width: int) -> int:
    """How many of `width` > 1 leaves the left subtree holds: the largest power of two below it."""
    return 1 << (width - 1).bit_length() - 1
