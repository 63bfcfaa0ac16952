"""What an auditor and an operator run from cron: exit codes that tell, and nothing overwritten that is needed later."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from site_under_test import Site, running

from registry.approval.attestation import Signer
from registry.audit.log import AuditLog
from registry.cli import main
from registry.events import GENESIS, chain_hash, encode_entry
from registry.records import Role
from registry.settings import Home
from registry.storage.journal import read_chain

pytestmark = pytest.mark.slow

GO, NO_GO, UNKNOWN = 0, 1, 3


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("audited") / "home")) as found:
        found.create_adapter()
        found.approved(tmp_path_factory.mktemp("rows"))
        yield found


@pytest.fixture
def tunegate(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path, who: str = "auditor", home: Path = site.home.root) -> Ran:
        monkeypatch.delenv("TUNEGATE_DEBUG", raising=False)
        monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens[who])
        monkeypatch.setenv("TUNEGATE_URL", site.url)
        monkeypatch.setenv("TUNEGATE_HOME", str(home))
        capsys.readouterr()
        code = 0
        try:
            main([str(one) for one in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def keys(tunegate: Run, tmp_path: Path) -> Path:
    assert tunegate("keys", "--to", tmp_path / "keys.json").code == GO
    return tmp_path / "keys.json"


@pytest.fixture
def kept(tunegate: Run, keys: Path, tmp_path: Path) -> Path:
    """A checkpoint, fetched now."""
    assert tunegate("audit", "checkpoint", "--to", tmp_path / "checkpoint", "--keys", keys).code == GO
    return tmp_path / "checkpoint"


def rewritten(source: Path, target: Path) -> None:
    """The journal with another time in its third entry and every hash after it made anew."""
    prev, lines = GENESIS, []
    for line in read_chain(source):
        at = "2020-01-01T00:00:00.000000Z" if line.entry.seq == 3 else line.entry.at
        entry = type(line.entry)(**{**_fields(line.entry), "prev": prev, "at": at})
        body = encode_entry(entry)
        prev = chain_hash(body)
        lines.append(prev.encode() + b" " + body + b"\n")
    target.write_bytes(b"".join(lines))


def without_journal(site: Site, folder: Path) -> Home:
    """Another home with the registry's keys and blobs."""
    home = Home(folder / "other")
    for name in ("keys", "blobs"):
        shutil.copytree(site.home.root / name, home.root / name)
    return home


def _fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


# -- audit --------------------------------------------------------------------------------------------------------


def test_the_journal_agrees_with_its_checkpoint(tunegate: Run, site: Site, keys: Path, kept: Path) -> None:
    ran = tunegate("audit", "verify", "--keys", keys, "--checkpoint", kept, "--json")
    assert ran.code == GO, ran
    found = ran.json
    assert found["valid"] is True and found["approvals"] == 1 and found["problems"] == []
    assert found["checkpoint"] <= found["seq"] == site.registry.journal.head.seq
    assert found["root"] == AuditLog(site.registry.journal).checkpoint().root.hex()
    assert "1 approvals verify" in tunegate("audit", "verify", "--keys", keys, "--checkpoint", kept).out


def test_a_rewritten_journal_is_caught_by_the_checkpoint_alone(
    tunegate: Run, site: Site, keys: Path, kept: Path, tmp_path: Path
) -> None:
    rewritten(site.home.journal, tmp_path / "forged.log")
    verify = ["audit", "verify", "--journal", tmp_path / "forged.log", "--keys", keys]
    assert tunegate(*verify).code == GO
    caught = tunegate(*verify, "--checkpoint", kept, "--json")
    assert caught.code == NO_GO and "they were rewritten" in caught.json["problems"][0]
    assert "they were rewritten" in tunegate(*verify, "--checkpoint", kept).out


def test_a_changed_checkpoint_is_no_proof(tunegate: Run, keys: Path, kept: Path, tmp_path: Path) -> None:
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join([lines[0], "1\n", *lines[2:]]))
    ran = tunegate("audit", "verify", "--keys", keys, "--checkpoint", kept, "--json")
    assert ran.code == NO_GO and "signature does not match" in ran.json["problems"][0]
    fetched = tunegate("audit", "checkpoint", "--to", kept, "--keys", keys)
    assert fetched.code == UNKNOWN and "is no checkpoint to go on from" in fetched.err
    assert kept.read_text().splitlines()[1] == "1", "it is not written over"


def test_verifying_takes_keys_and_a_journal_that_can_be_read(tunegate: Run, keys: Path, tmp_path: Path) -> None:
    for arguments, word in (
        (["--keys", tmp_path / "none"], "cannot be read"),
        (["--journal", tmp_path / "none", "--keys", keys], "cannot be read"),
        (["--checkpoint", tmp_path / "none", "--keys", keys], "cannot be read"),
    ):
        ran = tunegate("audit", "verify", *arguments)
        assert (ran.code, ran.out) == (UNKNOWN, "") and word in ran.err
    (tmp_path / "bad.json").write_text("{}")
    ran = tunegate("audit", "verify", "--keys", tmp_path / "bad.json")
    assert ran.code == UNKNOWN and "is no key file" in ran.err


def test_each_checkpoint_takes_the_place_of_the_one_before(
    tunegate: Run, site: Site, keys: Path, tmp_path: Path
) -> None:
    target = tmp_path / "checkpoint"
    fetch = ["audit", "checkpoint", "--to", target, "--keys", keys]
    first = tunegate(*fetch, "--json")
    assert first.code == GO and first.json["since"] is None
    again = tunegate(*fetch, "--json")
    assert again.code == GO and again.json["since"] == again.json["size"] == first.json["size"]
    site.add_token("one-more", Role.CI, "someone")
    grown = tunegate(*fetch, "--json")
    assert grown.code == GO and grown.json["since"] == first.json["size"] < grown.json["size"]
    assert int(target.read_text().splitlines()[1]) == grown.json["size"]
    assert tunegate("audit", "verify", "--keys", keys, "--checkpoint", target).code == GO


def test_an_older_checkpoint_from_elsewhere_can_be_compared_with(
    tunegate: Run, site: Site, keys: Path, kept: Path, tmp_path: Path
) -> None:
    site.add_token("another", Role.CI, "someone")
    ran = tunegate("audit", "checkpoint", "--to", tmp_path / "new", "--since", kept, "--keys", keys, "--json")
    assert ran.code == GO and ran.json["since"] < ran.json["size"]
    missing = tunegate("audit", "checkpoint", "--to", tmp_path / "new", "--since", tmp_path / "none", "--keys", keys)
    assert missing.code == UNKNOWN and "cannot be read" in missing.err


def test_a_checkpoint_that_contradicts_the_one_before_is_kept_as_evidence_and_not_instead(
    tunegate: Run, site: Site, keys: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry's key signs what the registry's administrator rewrote."""
    before = kept.read_text()
    home = without_journal(site, tmp_path)
    rewritten(site.home.journal, home.journal)
    with running(home) as forged:
        monkeypatch.setitem(site.tokens, "auditor", forged.tokens["auditor"])
        monkeypatch.setattr(site, "url", forged.url)
        ran = tunegate("audit", "checkpoint", "--to", kept, "--keys", keys, "--json")
    assert ran.code == NO_GO and "the journal was rewritten" in ran.json["problems"][0]
    assert kept.read_text() == before
    evidence = Path(ran.json["evidence"])
    assert evidence == kept.with_name("checkpoint.refused")
    assert int(evidence.read_text().splitlines()[1]) > int(before.splitlines()[1])


def test_a_checkpoint_signed_by_an_unknown_key_changes_nothing(
    tunegate: Run, kept: Path, keys: Path, tmp_path: Path
) -> None:
    before, document = kept.read_text(), json.loads(keys.read_text())
    signer = Signer.generate()
    stranger = {**document["keys"][0], "id": signer.public.id, "public": signer.public.public}
    (tmp_path / "stranger.json").write_text(json.dumps({"keys": [stranger]}))
    fetch = ["audit", "checkpoint", "--to", tmp_path / "new", "--keys", tmp_path / "stranger.json"]
    ran = tunegate(*fetch)
    assert (ran.code, ran.out) == (UNKNOWN, "") and "none of the trusted keys" in ran.err
    assert not (tmp_path / "new").exists() and kept.read_text() == before


def test_keys_that_a_root_signed_are_taken_with_the_root(tunegate: Run, keys: Path, tmp_path: Path) -> None:
    root, signed = tmp_path / "root.pem", tmp_path / "signed.json"
    assert tunegate("keys", "new", root).code == GO
    assert tunegate("keys", "sign", keys, "--root", root, "--to", signed).code == GO
    with_root = ["--keys", signed, "--root-key", f"{root}.pub"]
    assert tunegate("audit", "checkpoint", "--to", tmp_path / "checkpoint", *with_root).code == GO
    assert tunegate("audit", "verify", "--checkpoint", tmp_path / "checkpoint", *with_root).code == GO
    refused = tunegate("audit", "verify", "--keys", signed)
    assert refused.code == UNKNOWN and "--root-key" in refused.err


def test_a_registry_that_lost_its_end_is_caught(
    tunegate: Run, site: Site, keys: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = without_journal(site, tmp_path)
    home.journal.write_bytes(b"".join(site.home.journal.read_bytes().splitlines(keepends=True)[:5]))
    with running(home) as found:
        monkeypatch.setitem(site.tokens, "admin", found.tokens["admin"])
        monkeypatch.setattr(site, "url", found.url)
        ran = tunegate("audit", "checkpoint", "--to", kept, "--keys", keys, "--json", who="admin")
    assert ran.code == NO_GO and "its end is lost" in ran.json["problems"][0]


def test_another_registry_in_its_place_is_caught(
    tunegate: Run, site: Site, keys: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Home(tmp_path / "other")) as found:
        documents = [json.loads(file.read_text()) for file in (keys, found.home.public_keys)]
        both = tmp_path / "both.json"
        both.write_text(json.dumps({"keys": [key for document in documents for key in document["keys"]]}))
        monkeypatch.setitem(site.tokens, "admin", found.tokens["admin"])
        monkeypatch.setattr(site, "url", found.url)
        ran = tunegate("audit", "checkpoint", "--to", kept, "--keys", both, "--json", who="admin")
    assert ran.code == NO_GO and "this is the journal tunegate.dev/registry/" in ran.json["problems"][0]


@pytest.mark.parametrize("since", ["now", "before"])
def test_an_entry_is_proved_to_be_in_the_journal_that_was_signed(
    tunegate: Run, site: Site, keys: Path, kept: Path, since: str
) -> None:
    site.add_token(f"after the checkpoint {since}", Role.CI, f"after {since}")
    size = site.registry.journal.head.seq if since == "now" else int(kept.read_text().split()[1])
    against = [] if since == "now" else ["--checkpoint", kept]
    for seq in (1, 2, size // 2, size):
        ran = tunegate("audit", "proof", seq, "--keys", keys, *against, "--json")
        assert ran.code == GO, ran
        found = ran.json
        assert (found["valid"], found["seq"], found["size"]) == (True, seq, size)
        (line,) = [line for line in read_chain(site.home.journal) if line.entry.seq == seq]
        assert found["entry"] == json.loads(line.body)
    assert (
        f"in the journal of {size} entries that was signed"
        in tunegate("audit", "proof", 1, "--keys", keys, *against).out
    )


def test_an_approval_is_found_by_the_reference_that_was_pulled(tunegate: Run, site: Site, keys: Path) -> None:
    digest = site.client("admin").version("support-bot/1").digest
    for reference in ("support-bot@approved", "support-bot/1", "support-bot", f"support-bot@{digest}"):
        ran = tunegate("audit", "proof", reference, "--keys", keys, "--json")
        assert ran.code == GO, ran
        (moved,) = [event for event in ran.json["entry"]["events"] if event["type"] == "alias.moved"]
        assert (moved["adapter"], moved["number"], moved["digest"]) == ("support-bot", 1, digest)
    for reference in ("support-bot@canary", "support-bot/2", "other-bot", f"support-bot@sha256:{'0' * 64}"):
        ran = tunegate("audit", "proof", reference, "--keys", keys)
        assert (ran.code, ran.out) == (UNKNOWN, "") and "ever approved" in ran.err


def test_an_entry_that_was_rewritten_has_no_proof(
    tunegate: Run, site: Site, keys: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever serves another journal, whole in itself, has proofs of that one only."""
    other = without_journal(site, tmp_path)
    rewritten(site.home.journal, other.journal)
    with running(other) as forged:
        monkeypatch.setitem(site.tokens, "auditor", forged.tokens["auditor"])
        monkeypatch.setattr(site, "url", forged.url)
        for entry in (2, 3, "support-bot@approved"):
            ran = tunegate("audit", "proof", entry, "--keys", keys, "--checkpoint", kept, "--json")
            assert (ran.code, ran.json["valid"]) == (NO_GO, False), "the whole tree above it is another"
        assert "no proof" in tunegate("audit", "proof", 2, "--keys", keys, "--checkpoint", kept).out


def test_a_proof_from_a_journal_that_lost_its_end_does_not_hold(
    tunegate: Run, site: Site, keys: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = without_journal(site, tmp_path)
    lines = site.home.journal.read_bytes().splitlines(keepends=True)
    other.journal.write_bytes(b"".join(lines[:20]))
    with running(other) as shorter:
        monkeypatch.setattr(site, "url", shorter.url)
        ran = tunegate("audit", "proof", 1, "--keys", keys, "--checkpoint", kept, "--json", who="admin")
        assert (ran.code, ran.json["valid"]) == (NO_GO, False)


def test_what_cannot_be_proved_yet_or_ever_is_said(
    tunegate: Run, site: Site, keys: Path, kept: Path, tmp_path: Path
) -> None:
    site.add_token("later still", Role.CI, "later still")
    newest = site.registry.journal.head.seq
    ran = tunegate("audit", "proof", newest, "--keys", keys, "--checkpoint", kept)
    assert (ran.code, ran.out) == (UNKNOWN, "") and "newer than the checkpoint" in ran.err
    for entry in (0, newest + 1, 2**53, "Not-a-name"):
        ran = tunegate("audit", "proof", entry, "--keys", keys)
        assert (ran.code, ran.out) == (UNKNOWN, ""), entry
    kept.write_text(kept.read_text().replace("\n", "\n1", 1))
    ran = tunegate("audit", "proof", 1, "--keys", keys, "--checkpoint", kept)
    assert (ran.code, ran.out) == (UNKNOWN, "") and "can be believed" in ran.err
    ran = tunegate("audit", "proof", 1, "--keys", keys, who="ci")
    assert (ran.code, ran.out) == (UNKNOWN, "") and "auditor" in ran.err


def test_only_auditors_and_admins_get_a_checkpoint(tunegate: Run, keys: Path, tmp_path: Path) -> None:
    ran = tunegate("audit", "checkpoint", "--to", tmp_path / "x", "--keys", keys, who="ci")
    assert (ran.code, ran.out) == (UNKNOWN, "") and "auditor" in ran.err
    assert not (tmp_path / "x").exists()


# -- backup -------------------------------------------------------------------------------------------------------


def test_a_home_is_backed_up_beside_its_service_and_restored(tunegate: Run, site: Site, tmp_path: Path) -> None:
    target, other = tmp_path / "backup", tmp_path / "restored"
    first = tunegate("backup", "--to", target, "--json")
    assert first.code == GO and first.json["seq"] == site.registry.journal.head.seq
    assert first.json["lost"] == [] and "signing.pem" in first.json["keys"]
    again = tunegate("backup", "--to", target)
    assert again.code == GO and "It holds the private keys" in again.out and "0 blobs more" in again.out
    ran = tunegate("restore", "--from", target, "--json", home=other)
    assert ran.code == GO and ran.json["hash"] == first.json["hash"]
    assert tunegate("audit", "verify", "--keys", site.home.public_keys, home=other).code == GO
    refused = tunegate("restore", "--from", target, home=other)
    assert (refused.code, refused.out) == (UNKNOWN, "") and "is not empty" in refused.err


def test_a_backup_that_lacks_a_blob_says_so_and_exits_1(tunegate: Run, site: Site, tmp_path: Path) -> None:
    home = Home(tmp_path / "copy")
    shutil.copytree(site.home.root, home.root)
    stored = site.client("admin").version("support-bot/1")
    sha256 = stored.files[0].sha256
    (home.blobs / "sha256" / sha256[:2] / sha256).unlink()
    ran = tunegate("backup", "--to", tmp_path / "backup", "--json", home=home.root)
    assert (ran.code, ran.json["lost"]) == (NO_GO, [sha256])
    restored = tunegate("restore", "--from", tmp_path / "backup", home=tmp_path / "restored")
    assert restored.code == NO_GO and f"lost: blob sha256:{sha256}" in restored.out


def test_without_keys_it_is_said_what_is_missing(tunegate: Run, tmp_path: Path) -> None:
    ran = tunegate("backup", "--to", tmp_path / "backup", "--without-keys")
    assert ran.code == GO and "It holds no keys" in ran.out
    restored = tunegate("restore", "--from", tmp_path / "backup", home=tmp_path / "restored")
    assert restored.code == GO and "before you start it" in restored.out


def test_what_is_no_backup_is_refused(tunegate: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for arguments, home, word in (
        (["backup", "--to", tmp_path / "new"], tmp_path / "none", "no journal"),
        (["backup"], tmp_path / "none", "--to"),
        (["restore", "--from", tmp_path / "none"], tmp_path / "none", "holds no finished backup"),
        (["restore"], tmp_path / "none", "--from"),
    ):
        ran = tunegate(*arguments, home=home)
        assert (ran.code, ran.out) == (UNKNOWN, "") and word in ran.err, ran
    ran = tunegate("backup", "--to", tmp_path / "full")
    assert ran.code == UNKNOWN and "is not empty and no backup" in ran.err
