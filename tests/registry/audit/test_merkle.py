"""The tree is RFC 6962's, every proof it gives holds, and no other does."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    Tree,
    consistency_holds,
    inclusion_holds,
    leaf_hash,
    node_hash,
)

# Published with certificate-transparency's own tests (its merkle tree tests and Go's transparency-dev/merkle).
LEAVES = [
    bytes.fromhex(one)
    for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): INCLUSION[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def planted(size: int) -> Tree:
    """A tree over `size` different leaves; the first eight are the published ones."""
    tree = Tree()
    for index in range(size):
        tree.append(leaf_hash(LEAVES[index] if index < len(LEAVES) else b"leaf %d" % index))
    return tree


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word by word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:half]) + by_definition(leaves[half:])).digest()


TREE = planted(70)
SIZES = st.integers(1, TREE.size)


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_roots_are_the_published_ones(size: int) -> None:
    frontier = Frontier()
    for data in LEAVES[:size]:
        frontier.append(leaf_hash(data))
    assert frontier.size == size
    assert frontier.root().hex() == TREE.root(size).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_the_published_ones(index: int, size: int) -> None:
    assert [one.hex() for one in TREE.inclusion(index, size)] == INCLUSION[index, size]


@pytest.mark.parametrize(("older", "newer"), CONSISTENCY)
def test_consistency_proofs_are_the_published_ones(older: int, newer: int) -> None:
    assert [one.hex() for one in TREE.consistency(older, newer)] == CONSISTENCY[older, newer]


@given(st.lists(st.binary(max_size=3), max_size=40))
def test_roots_are_those_of_the_definition(leaves: list[bytes]) -> None:
    tree, frontier = Tree(), Frontier()
    for data in leaves:
        tree.append(leaf_hash(data))
        frontier.append(leaf_hash(data))
    assert tree.root(len(leaves)) == frontier.root() == by_definition(leaves)
    assert tree.size == frontier.size == len(leaves)


def test_a_node_never_passes_for_a_leaf() -> None:
    two = leaf_hash(b"a") + leaf_hash(b"b")
    assert leaf_hash(two) != by_definition([b"a", b"b"])


def test_every_proof_of_every_size_holds_and_is_short() -> None:
    for size in range(1, TREE.size + 1):
        for index in range(size):
            proof = TREE.inclusion(index, size)
            assert len(proof) <= (size - 1).bit_length()
            assert inclusion_holds(TREE.leaf(index), index, size, proof, TREE.root(size))
        for older in range(size + 1):
            shown = TREE.consistency(older, size) if older else []
            assert len(shown) <= (size - 1).bit_length() + 1
            assert consistency_holds(older, TREE.root(older), size, TREE.root(size), shown)


def flipped(data: bytes, bit: int) -> bytes:
    return bytes(byte ^ (1 << bit % 8 if index == bit // 8 else 0) for index, byte in enumerate(data))


@given(SIZES, st.data())
def test_any_change_to_an_inclusion_proof_is_seen(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaf, proof, root = TREE.leaf(index), TREE.inclusion(index, size), TREE.root(size)
    bit = data.draw(st.integers(0, 255))
    assert not inclusion_holds(flipped(leaf, bit), index, size, proof, root)
    assert not inclusion_holds(leaf, index, size, proof, flipped(root, bit))
    assert not inclusion_holds(leaf, index, size, [*proof, flipped(root, bit)], root)
    for other in {*range(-1, size + 1)} - {index}:
        assert not inclusion_holds(leaf, other, size, proof, root)
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        changed = [*proof[:place], flipped(proof[place], bit), *proof[place + 1 :]]
        assert not inclusion_holds(leaf, index, size, changed, root)
        assert not inclusion_holds(leaf, index, size, proof[:place] + proof[place + 1 :], root)


@given(SIZES, st.data())
def test_proof_of_another_size_is_refused_unless_the_way_is_the_same(size: int, data: st.DataObject) -> None:
    index, other = data.draw(st.integers(0, size - 1)), data.draw(SIZES)
    proof = TREE.inclusion(index, size)
    assert inclusion_holds(TREE.leaf(index), index, other, proof, TREE.root(other)) == (
        other > index and TREE.inclusion(index, other) == proof and TREE.root(other) == TREE.root(size)
    )


@given(st.integers(2, TREE.size), st.data())
def test_any_change_to_a_consistency_proof_is_seen(newer: int, data: st.DataObject) -> None:
    older = data.draw(st.integers(1, newer - 1))
    old, new, proof = TREE.root(older), TREE.root(newer), TREE.consistency(older, newer)
    bit, place = data.draw(st.integers(0, 255)), data.draw(st.integers(0, len(proof) - 1))
    assert not consistency_holds(older, flipped(old, bit), newer, new, proof)
    assert not consistency_holds(older, old, newer, flipped(new, bit), proof)
    assert not consistency_holds(
        older, old, newer, new, [*proof[:place], flipped(proof[place], bit), *proof[place + 1 :]]
    )
    assert not consistency_holds(older, old, newer, new, proof[:place] + proof[place + 1 :])
    assert not consistency_holds(older, old, newer, new, [*proof, old])
    assert not consistency_holds(newer, new, older, old, proof)
    for other in {*range(newer + 1)} - {older}:
        assert not consistency_holds(other, old, newer, new, proof)


def test_a_rewritten_entry_leaves_no_consistent_tree() -> None:
    for rewritten in range(20):
        other = Tree()
        for index in range(40):
            other.append(leaf_hash(b"rewritten") if index == rewritten else TREE.leaf(index))
        assert not consistency_holds(20, TREE.root(20), 40, other.root(40), other.consistency(20, 40))
        assert not consistency_holds(20, TREE.root(20), 40, other.root(40), TREE.consistency(20, 40))


def test_a_proof_longer_than_the_way_to_the_root_shows_nothing() -> None:
    """Not even where the root was made to fit: the size says how long the way is."""
    more = leaf_hash(b"more")
    for index, size in ((0, 1), (0, 2), (2, 3), (4, 7)):
        fitting = node_hash(more, TREE.root(size))
        assert not inclusion_holds(TREE.leaf(index), index, size, [*TREE.inclusion(index, size), more], fitting)
    for older, newer in ((3, 4), (3, 5), (6, 8)):
        shown = [*TREE.consistency(older, newer), more]
        fitting = node_hash(more, TREE.root(older)), node_hash(more, TREE.root(newer))
        assert not consistency_holds(older, fitting[0], newer, fitting[1], shown)


def test_trees_of_one_size_are_consistent_only_if_they_are_the_same() -> None:
    assert consistency_holds(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    assert not consistency_holds(0, TREE.root(1), 0, TREE.root(1), [])
    assert not consistency_holds(0, TREE.root(1), 5, TREE.root(5), [])
    assert not consistency_holds(0, EMPTY_ROOT, 5, TREE.root(5), [TREE.root(5)])
    assert not consistency_holds(5, TREE.root(5), 5, TREE.root(5), [TREE.root(5)])
    assert not consistency_holds(5, TREE.root(5), 5, TREE.root(6), [])
    assert not consistency_holds(3, TREE.root(3), 5, TREE.root(5), [])
    assert not consistency_holds(-1, EMPTY_ROOT, 5, TREE.root(5), [TREE.root(5)])
