"""Bits flip in the catalog's files, or their end is missing: no answer is ever older than the journal."""

import os
import random
import shutil
from pathlib import Path

import pytest
from factories import sha
from forked_under_test import forked
from forked_work import digest_of_tables
from registry_under_test import bench_in
from soak import amount

from registry.settings import Home

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose catalog has a checkpointed part and a write-ahead log, as a killed process leaves them."""
    folder = tmp_path_factory.mktemp("damage")
    with bench_in(folder / "live") as bench:
        bench.create_adapter()
        bench.promote(bench.approvable(1))
        bench.reopen()
        bench.promote(bench.approvable(2))
        bench.revoke(1)
        shutil.copytree(folder / "live", folder / "home")
    assert log_of(Home(folder / "home")).stat().st_size > 10_000
    return Home(folder / "home")


def log_of(home: Home) -> Path:
    return home.catalog.with_name("catalog.duckdb.wal")


def opened(home: Home) -> str:
    """What the catalog holds, or why it refuses. A service that ends because of damage is started once more."""
    found = ""
    for _ in range(2):
        with forked(digest_of_tables, home) as process:
            process.go()
            found = process.said()
        if "builds it anew" not in found:
            break
    return found


@pytest.fixture(scope="module")
def truth(home: Home, tmp_path_factory: pytest.TempPathFactory) -> str:
    copy = shutil.copytree(home.root, tmp_path_factory.mktemp("truth") / "home")
    return opened(Home(copy))


def flips(size: int, n: int, seed: int) -> list[tuple[int, int]]:
    """Places all over a file, its first bytes among them, and a bit for each."""
    chance = random.Random(seed)
    return [(i * 7 if i < 4 else chance.randrange(size), 1 << chance.randrange(8)) for i in range(n)]


@pytest.mark.parametrize("file", ["catalog.duckdb", "catalog.duckdb.wal"])
def test_a_flipped_bit_is_repaired_from_the_journal(home: Home, truth: str, tmp_path: Path, file: str) -> None:
    size = (home.root / file).stat().st_size
    for number, (offset, bit) in enumerate(flips(size, amount(40, 1500), seed=len(file))):
        copy = Home(shutil.copytree(home.root, tmp_path / str(number)))
        with (copy.root / file).open("r+b") as damaged:
            damaged.seek(offset)
            byte = damaged.read(1)[0]
            damaged.seek(offset)
            damaged.write(bytes([byte ^ bit]))
        assert opened(copy) == truth, f"bit {bit} of byte {offset} in {file}"
        shutil.rmtree(copy.root)


@pytest.mark.parametrize("file", ["catalog.duckdb", "catalog.duckdb.wal"])
def test_a_file_cut_off_anywhere_is_repaired_from_the_journal(
    home: Home, truth: str, tmp_path: Path, file: str
) -> None:
    size = (home.root / file).stat().st_size
    for number, (length, _) in enumerate(flips(size, amount(16, 500), seed=1)):
        copy = Home(shutil.copytree(home.root, tmp_path / str(number)))
        os.truncate(copy.root / file, length)
        assert opened(copy) == truth, f"{file} cut at {length}"
        shutil.rmtree(copy.root)


def test_zeros_in_the_middle_of_the_log_are_repaired_from_the_journal(home: Home, truth: str, tmp_path: Path) -> None:
    copy = Home(shutil.copytree(home.root, tmp_path / "home"))
    data = log_of(copy).read_bytes()
    log_of(copy).write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert opened(copy) == truth


def test_a_journal_that_lost_its_end_is_refused_and_the_catalog_is_the_witness(home: Home, tmp_path: Path) -> None:
    copy = Home(shutil.copytree(home.root, tmp_path / "home"))
    lines = copy.journal.read_bytes().splitlines(keepends=True)
    copy.journal.write_bytes(b"".join(lines[:-3]))
    assert "lost its tail" in opened(copy)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.95])
def test_a_flipped_bit_in_the_journal_is_refused(home: Home, tmp_path: Path, place: float) -> None:
    copy = Home(shutil.copytree(home.root, tmp_path / "home"))
    data = bytearray(copy.journal.read_bytes())
    data[int(len(data) * place)] ^= 4
    copy.journal.write_bytes(bytes(data))
    assert "does not verify" in opened(copy)
    assert sha(copy.journal.read_bytes()) == sha(bytes(data)), "refused, and left as it is"
