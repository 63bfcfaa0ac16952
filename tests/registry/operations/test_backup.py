"""A backup is whole or refused, grows by what is new, and the home made from it answers as the old one did."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from factories import sha
from registry_under_test import NAME, REVIEWERS, Bench, bench_in, make_rating, tables

from registry.commands import review
from registry.errors import Conflict, InvalidRequest, StorageDamaged, StorageFull, TunegateError, Unavailable
from registry.opening import open_registry
from registry.operations.backup import Manifest, back_up, read_manifest, restore
from registry.settings import Home
from registry.storage.journal import verify_chain

pytestmark = pytest.mark.slow

COMMENT = b"It is polite, and wrong."


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with an approved version, one that is announced only, and a comment. Copy it before changing it."""
    home = Home(tmp_path_factory.mktemp("filled") / "home")
    with bench_in(home.root) as bench:
        bench.create_adapter()
        bench.complete(bench.submit(1).number)
        bench.evaluate()
        item = bench.run(REVIEWERS[0], review.next_assignment).value
        words = bench.registry.blobs.put(COMMENT)
        bench.run(REVIEWERS[0], review.rate, assignment_id=item.id, rating=make_rating(), comment_sha256=words)
        bench.review()
        bench.promote(1)
        announce(bench, 2)
    return home


@pytest.fixture
def live(filled: Home, tmp_path: Path) -> Home:
    shutil.copytree(filled.root, tmp_path / "live")
    return Home(tmp_path / "live")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def other(tmp_path: Path) -> Home:
    return Home(tmp_path / "elsewhere" / "home")


def announce(bench: Bench, fill: int) -> str:
    """A version whose weights never come; their sha256."""
    created = bench.submit(fill)
    stored = bench.registry.view().version(NAME, created.number)
    assert stored is not None
    weights = stored.files[-1].sha256
    bench.registry.blobs.path(weights).unlink()
    return weights


def state(home: Home) -> dict[str, object]:
    with bench_in(home.root) as bench:
        return {**tables(bench.registry), "head": bench.registry.journal.head}


def blob_of(home: Home, sha256: str) -> Path:
    return home.blobs / "sha256" / sha256[:2] / sha256


def needed(home: Home) -> str:
    """A blob that must be there: a file of the approved version."""
    with bench_in(home.root) as bench:
        stored = bench.registry.view().version(NAME, 1)
        assert stored is not None
        return stored.files[0].sha256


# -- both ways ----------------------------------------------------------------------------------------------------


def test_a_restored_home_is_the_one_that_was_backed_up(live: Home, target: Path, other: Home) -> None:
    before = state(live)
    done = back_up(live, target)
    assert restore(target, other) == done.manifest == read_manifest(target)
    assert not done.manifest.lost and len(done.manifest.absent) == 1
    assert state(other) == before
    assert other.signing_key.read_bytes() == live.signing_key.read_bytes()
    assert not other.restoring.exists()


def test_a_restored_home_goes_on(live: Home, target: Path, other: Home) -> None:
    back_up(live, target)
    restore(target, other)
    with bench_in(other.root) as bench:
        bench.promote(bench.approvable(3))
        assert bench.rebuilt() == bench.tables()
    assert verify_chain(other.journal).seq > verify_chain(live.journal).seq


def test_secrets_are_readable_by_their_owner_only(live: Home, target: Path, other: Home) -> None:
    done = back_up(live, target)
    assert {"signing.pem", "draw.secret", "admin.token"} <= done.manifest.keys.keys()
    restore(target, other)
    for folder in (target, other.root):
        assert folder.stat().st_mode & 0o077 == 0
    for path in [*(target / "keys").iterdir(), *other.signing_key.parent.iterdir(), other.journal]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_without_keys_no_secret_is_in_the_backup(live: Home, target: Path, other: Home) -> None:
    back_up(live, target)
    assert not back_up(live, target, with_keys=False).manifest.keys
    secrets = [path.read_bytes() for path in live.signing_key.parent.iterdir() if path != live.public_keys]
    for path in target.rglob("*"):
        assert not path.is_file() or path.read_bytes() not in secrets, path
    restore(target, other)
    with pytest.raises(StorageDamaged, match="restore the keys"):
        open_registry(other)
    shutil.copytree(live.signing_key.parent, other.signing_key.parent, dirs_exist_ok=True)
    assert state(other) == state(live)


def test_a_torn_tail_is_left_behind(live: Home, target: Path, other: Home) -> None:
    before = state(live)
    with live.journal.open("ab") as file:
        file.write(b"0" * 64 + b' {"seq":')
    back_up(live, target)
    restore(target, other)
    assert state(other) == before


# -- adding to a backup -------------------------------------------------------------------------------------------


def test_the_next_backup_copies_only_what_is_new(live: Home, target: Path, other: Home) -> None:
    first = back_up(live, target)
    again = back_up(live, target)
    assert first.new_blobs > 5 and (again.new_blobs, again.new_bytes) == (0, 0)
    assert again.manifest == first.manifest
    with bench_in(live.root) as bench:
        bench.submit(77)
        bench.complete(3)
    added = back_up(live, target)
    assert added.new_blobs == 1, "the weights: the rest of the version is the same"
    assert added.new_bytes == blob_of(live, sha_of_weights(live, 3)).stat().st_size
    restore(target, other)
    assert state(other) == state(live)


def sha_of_weights(home: Home, number: int) -> str:
    with bench_in(home.root) as bench:
        stored = bench.registry.view().version(NAME, number)
        assert stored is not None
        return stored.files[-1].sha256


def test_a_blob_that_came_after_the_last_backup_is_in_the_next(live: Home, target: Path) -> None:
    first = back_up(live, target).manifest
    blob_of(live, first.absent[0]).parent.mkdir(exist_ok=True)
    with bench_in(live.root) as bench:
        bench.submit(2)  # sends the bytes that were missing; the version is known
    second = back_up(live, target)
    assert second.manifest.absent == [] and second.new_blobs == 1
    assert second.manifest.seq == first.seq


def test_a_journal_that_does_not_continue_the_backup_is_refused(live: Home, target: Path, tmp_path: Path) -> None:
    kept = back_up(live, target).manifest
    lines = live.journal.read_bytes().splitlines(keepends=True)
    live.journal.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(InvalidRequest, match="lost its tail or is another one"):
        back_up(live, target)
    with bench_in(tmp_path / "stranger") as bench:
        bench.create_adapter()
        for fill in range(1, 30):
            bench.submit(fill)
    with pytest.raises(InvalidRequest, match="lost its tail or is another one"):
        back_up(Home(tmp_path / "stranger"), target)
    assert read_manifest(target) == kept


def test_a_refused_backup_leaves_the_older_one_whole(live: Home, target: Path, other: Home) -> None:
    before = state(live)
    back_up(live, target)
    lines = live.journal.read_bytes().splitlines(keepends=True)
    live.journal.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(InvalidRequest):
        back_up(live, target)
    restore(target, other)
    assert state(other) == before


def test_a_directory_that_is_no_backup_is_left_alone(live: Home, target: Path) -> None:
    target.mkdir()
    (target / "thesis.tex").write_text("mine")
    with pytest.raises(InvalidRequest, match="is not empty and no backup"):
        back_up(live, target)
    with pytest.raises(InvalidRequest, match="is not empty and no backup"):
        back_up(live, live.root)
    assert [path.name for path in target.iterdir()] == ["thesis.tex"]


def test_one_directory_takes_one_backup_at_a_time(live: Home, target: Path) -> None:
    refused: list[str] = []

    def second(done: int, total: int) -> None:
        with pytest.raises(Conflict) as caught:
            back_up(live, target)
        refused.append(str(caught.value))

    back_up(live, target, report=second)
    assert refused and all("another process" in one for one in refused)


def test_there_is_no_backup_of_nothing(tmp_path: Path, target: Path) -> None:
    with pytest.raises(InvalidRequest, match="no journal"):
        back_up(Home(tmp_path / "none"), target)
    assert not target.exists()


# -- a home that is not as it should be ---------------------------------------------------------------------------


def test_a_lost_or_rotten_blob_is_named_and_a_deleted_comment_is_not(live: Home, target: Path, other: Home) -> None:
    rotten, lost = needed(live), sha_of_weights(live, 1)
    path = blob_of(live, rotten)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    blob_of(live, lost).unlink()
    blob_of(live, sha(COMMENT)).unlink()
    manifest = back_up(live, target).manifest
    assert manifest.lost == sorted([rotten, lost])
    assert sha(COMMENT) in manifest.absent
    assert blob_of(live, rotten).exists(), "a backup changes nothing in the home"
    assert restore(target, other).lost == manifest.lost
    assert not blob_of(other, rotten).exists()


def test_a_blob_that_the_disk_does_not_give_is_lost_and_the_rest_is_not(live: Home, target: Path, other: Home) -> None:
    sha256 = needed(live)
    blob_of(live, sha256).unlink()
    blob_of(live, sha256).mkdir()
    assert back_up(live, target).manifest.lost == [sha256]
    assert not any((target / "blobs" / "parts").iterdir())
    assert restore(target, other).lost == [sha256]


def test_a_full_disk_ends_a_backup_and_the_next_goes_on(
    live: Home, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("registry.storage.uploads.write_all", full)
        with pytest.raises(StorageFull):
            back_up(live, target)
    with pytest.raises(InvalidRequest, match="no finished backup"):
        read_manifest(target)
    assert back_up(live, target).manifest.lost == []


def test_a_blob_that_the_backup_has_heals_what_the_home_lost(live: Home, target: Path, other: Home) -> None:
    sha256 = needed(live)
    back_up(live, target)
    blob_of(live, sha256).unlink()
    assert back_up(live, target).manifest.lost == []
    restore(target, other)
    assert blob_of(other, sha256).exists()


def test_a_journal_that_does_not_verify_is_not_backed_up(live: Home, target: Path) -> None:
    data = bytearray(live.journal.read_bytes())
    data[len(data) // 2] ^= 1
    live.journal.write_bytes(data)
    with pytest.raises(StorageDamaged, match="does not verify"):
        back_up(live, target)
    with pytest.raises(InvalidRequest, match="no finished backup"):
        read_manifest(target)


def test_a_journal_that_was_cut_back_meanwhile_is_not_backed_up(live: Home, target: Path) -> None:
    """As a service does that found no space for an entry, of which some lines were written."""
    size = live.journal.stat().st_size

    def cut(done: int, total: int) -> None:
        os.truncate(live.journal, size - 10)

    with pytest.raises(Unavailable, match="cut back"):
        back_up(live, target, report=cut)
    with pytest.raises(InvalidRequest, match="no finished backup"):
        read_manifest(target)


def test_keys_that_were_changed_meanwhile_are_not_backed_up(live: Home, target: Path) -> None:
    with pytest.raises(Unavailable, match="the keys were changed"):
        back_up(live, target, report=lambda done, total: live.signing_key.write_bytes(b"another"))


# -- restoring what is not as it should be ------------------------------------------------------------------------


def damaged_journal(target: Path, manifest: Manifest) -> None:
    data = bytearray((target / "journal.log").read_bytes())
    data[200] ^= 1
    (target / "journal.log").write_bytes(data)


def shorter_journal(target: Path, manifest: Manifest) -> None:
    os.truncate(target / "journal.log", manifest.journal_bytes - 1)


def journal_without_its_last_entry(target: Path, manifest: Manifest) -> None:
    lines = (target / "journal.log").read_bytes().splitlines(keepends=True)
    (target / "journal.log").write_bytes(b"".join(lines[:-1]))


def damaged_blob(target: Path, manifest: Manifest) -> None:
    path = next(path for path in (target / "blobs").rglob("*") if path.is_file())
    path.chmod(0o600)
    path.write_bytes(b"x")


def missing_blob(target: Path, manifest: Manifest) -> None:
    next(path for path in (target / "blobs").rglob("*") if path.is_file()).unlink()


def damaged_key(target: Path, manifest: Manifest) -> None:
    (target / "keys" / manifest.keys["signing.pem"]).write_bytes(b"x")


def missing_key(target: Path, manifest: Manifest) -> None:
    (target / "keys" / manifest.keys["draw.secret"]).unlink()


def key_outside_its_folder(target: Path, manifest: Manifest) -> None:
    keys = {"../../escaped": manifest.keys["signing.pem"]}
    (target / "manifest.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, keys=keys)))


def other_head(target: Path, manifest: Manifest) -> None:
    changed = msgspec.structs.replace(manifest, seq=manifest.seq - 1)
    (target / "manifest.json").write_bytes(msgspec.json.encode(changed))


DAMAGES = [
    damaged_journal,
    shorter_journal,
    journal_without_its_last_entry,
    damaged_blob,
    missing_blob,
    damaged_key,
    missing_key,
    key_outside_its_folder,
    other_head,
]


@pytest.fixture(scope="module")
def backup(filled: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("backup") / "backup"
    back_up(filled, target)
    return target


@pytest.mark.parametrize("damage", DAMAGES, ids=[one.__name__ for one in DAMAGES])
def test_a_damaged_backup_makes_no_home(
    backup: Path, tmp_path: Path, damage: Callable[[Path, Manifest], None], other: Home
) -> None:
    target = tmp_path / "backup"
    shutil.copytree(backup, target)
    damage(target, read_manifest(target))
    with pytest.raises(TunegateError):
        restore(target, other)
    assert not any(other.root.iterdir()), "nothing is left that could be taken for a home"
    assert {path.name for path in tmp_path.iterdir()} == {"backup", "elsewhere"}


def test_everything_that_is_wrong_with_a_backup_is_told_at_once(backup: Path, tmp_path: Path, other: Home) -> None:
    target = tmp_path / "backup"
    shutil.copytree(backup, target)
    damaged_key(target, read_manifest(target))
    missing_blob(target, read_manifest(target))
    with pytest.raises(
        StorageDamaged, match=r"blob sha256:\w+ is missing or damaged; key file signing.pem was changed"
    ):
        restore(target, other)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "holds no finished backup"),
        (b"", "is no manifest"),
        (b"{}", "is no manifest"),
        (b'{"format": 1, "keys": 5}', "is no manifest"),
    ],
)
def test_a_backup_without_its_manifest_is_none(
    backup: Path, tmp_path: Path, other: Home, text: bytes | None, reason: str
) -> None:
    target = tmp_path / "backup"
    shutil.copytree(backup, target)
    (target / "manifest.json").unlink()
    if text is not None:
        (target / "manifest.json").write_bytes(text)
    with pytest.raises(InvalidRequest, match=reason):
        restore(target, other)
    assert not other.root.exists()


def test_a_backup_of_a_newer_form_is_refused(backup: Path, tmp_path: Path, other: Home) -> None:
    target = tmp_path / "backup"
    shutil.copytree(backup, target)
    changed = msgspec.structs.replace(read_manifest(target), format=2)
    (target / "manifest.json").write_bytes(msgspec.json.encode(changed))
    with pytest.raises(InvalidRequest, match="newer tunegate"):
        restore(target, other)


def test_what_is_behind_the_backups_end_is_not_restored(backup: Path, tmp_path: Path, other: Home) -> None:
    """A later backup that was broken off has put its journal there already."""
    target = tmp_path / "backup"
    shutil.copytree(backup, target)
    with (target / "journal.log").open("ab") as file:
        file.write(b"more than the manifest says\n")
    assert restore(target, other).seq == verify_chain(other.journal).seq


def test_a_home_that_holds_anything_is_not_restored_into(backup: Path, live: Home) -> None:
    before = state(live)
    with pytest.raises(InvalidRequest, match="is not empty"):
        restore(backup, live)
    assert state(live) == before


def test_an_unfinished_restore_is_no_home(backup: Path, other: Home) -> None:
    restore(backup, other)
    other.restoring.mkdir()
    with pytest.raises(StorageDamaged, match="unfinished restore"):
        open_registry(other)
    with pytest.raises(InvalidRequest, match="unfinished restore"):
        restore(backup, other)
    other.restoring.rmdir()
    open_registry(other).registry.close()
