"""pull, verify, keys and countersign as product teams, admins and release managers call them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner
from factories import BASE
from site_under_test import SMALL_REVIEW, Site, running

from registry.approval.attestation import Signer
from registry.approval.verification import ATTESTATION_FILE
from registry.cli import main
from registry.opening import rotate_key
from registry.records import KeySet, PromotionRule, Role
from registry.settings import Home

pytestmark = pytest.mark.slow
GO, NO_GO, UNKNOWN = 0, 1, 3
APPROVED = "support-bot@approved"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two approved versions; `approved` names the second."""
    with running(Home(tmp_path_factory.mktemp("pulling") / "home")) as found:
        found.create_adapter()
        for fill in (1, 2):
            found.approved(tmp_path_factory.mktemp("rows"), fill=fill)
        yield found


@pytest.fixture
def tunegate(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line of a product team, with a home of its own."""

    def run(*arguments: str | Path, who: str | None = "consumer", at: Site = site, home: Path | None = None) -> Ran:
        monkeypatch.delenv("TUNEGATE_TOKEN", raising=False)
        if who is not None:
            monkeypatch.setenv("TUNEGATE_TOKEN", at.tokens[who])
        monkeypatch.setenv("TUNEGATE_URL", at.url)
        monkeypatch.setenv("TUNEGATE_HOME", str(home or tmp_path / "own"))
        capsys.readouterr()
        code = 0
        try:
            main([str(one) for one in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def pulled(tunegate: Run, tmp_path: Path) -> Path:
    assert tunegate("keys", "--to", tmp_path / "keys.json").code == GO
    assert tunegate("pull", APPROVED, "--to", tmp_path / "bot", "--keys", tmp_path / "keys.json").code == GO
    return tmp_path / "bot"


def edit_keys(path: Path, **changes: Any) -> Path:
    """A key file whose first key was changed, without a checksum."""
    document = json.loads(path.read_bytes())
    document["keys"][0] |= changes
    edited = path.with_name("edited.json")
    edited.write_text(json.dumps({"keys": document["keys"]}))
    return edited


# -- what verify refuses (C56) ------------------------------------------------------------------------------------


def test_verify_takes_what_is_as_it_should_be(tunegate: Run, pulled: Path) -> None:
    keys = pulled.parent / "keys.json"
    wanted = ["--adapter", "support-bot", "--alias", "latest", "--base", BASE.digest, "--max-age", "1"]
    ran = tunegate("verify", pulled, "--keys", keys, *wanted, "--min-counter", "2", "--json", who=None)
    found = json.loads(ran.out)
    assert (ran.code, found["valid"], found["ref"], found["counter"]) == (GO, True, "support-bot/2", 2)
    assert found["expires"] > found["as_of"] and len(found["signed_by"]) == 1


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("changed payload", "signature does not match"),
        ("wrong key", "none of the trusted keys"),
        ("revoked key", "was revoked at"),
        ("retired before", "was no longer valid"),
        ("wrong role", "has no role gate"),
        ("too old", "more than 0 days ago"),
        ("second signature missing", "lacks the signature of a release-manager"),
        ("other subject", "adapter_model.safetensors was changed"),
        ("other adapter", "approval of support-bot, not of other-bot"),
        ("other alias", "approved as approved, not as canary"),
        ("lower counter", "rollback: support-bot@approved is at move 2"),
        ("lower than seen", "rollback: support-bot@approved is at move 2"),
        ("other base", "approved for the base"),
        ("other files' approval", "was changed: its sha256"),
        ("no approval", "attestation.json is missing"),
    ],
)
def test_verify_exits_with_1_and_says_why(tunegate: Run, pulled: Path, tmp_path: Path, case: str, said: str) -> None:
    keys, options = tmp_path / "keys.json", []
    attestation = pulled / ATTESTATION_FILE
    match case:
        case "changed payload":
            document = json.loads(attestation.read_bytes())
            document["payload"] = ("f" if document["payload"][0] == "e" else "e") + document["payload"][1:]
            attestation.write_text(json.dumps(document))
        case "wrong key":
            keys.write_bytes(msgspec.json.encode(KeySet(keys=[Signer.generate().public])))
        case "revoked key":
            keys = edit_keys(keys, revoked_at="2026-01-01T00:00:00Z")
        case "retired before":
            keys = edit_keys(keys, valid_from=None, valid_until="2000-01-01T00:00:00Z")
        case "wrong role":
            keys = edit_keys(keys, roles=["checkpoint"])
        case "too old":
            options = ["--max-age", "0"]
        case "second signature missing":
            options = ["--require", "release-manager"]
        case "other subject":
            (pulled / "adapter_model.safetensors").write_bytes(b"other weights")
        case "other adapter":
            options = ["--adapter", "other-bot"]
        case "other alias":
            options = ["--alias", "canary"]
        case "lower counter":
            options = ["--min-counter", "3"]
        case "lower than seen":
            (tmp_path / "seen.json").write_text(f'{{"{APPROVED}": 3}}')
            options = ["--state", tmp_path / "seen.json"]
        case "other base":
            options = ["--base", "sha256:" + "9" * 64]
        case "other files' approval":
            tunegate("pull", "support-bot/2", "--to", tmp_path / "other")
            (tmp_path / "other" / "adapter_config.json").write_bytes(b"{}")
            pulled = tmp_path / "other"
        case "no approval":
            attestation.unlink()
    ran = tunegate("verify", pulled, "--keys", keys, *options, who=None)
    assert (ran.code, said in ran.out) == (NO_GO, True), ran


def test_an_expired_approval_exits_with_1(tunegate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry.cli import pulling

    assert tunegate("keys", "--to", tmp_path / "keys.json").code == GO
    assert tunegate("pull", APPROVED, "--to", tmp_path / "bot").code == GO
    real = pulling.datetime

    class InTwoYears(real):  # type: ignore[misc,valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.now(tz).replace(year=real.now(tz).year + 2)

    monkeypatch.setattr(pulling, "datetime", InTwoYears)
    ran = tunegate("verify", tmp_path / "bot", "--keys", tmp_path / "keys.json", who=None)
    assert ran.code == NO_GO and "the approval expired at" in ran.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--adapter", "../x"], "is not of the form"),
        (["--alias", "APPROVED"], "cannot be written"),
        (["--base", "sha256:x"], "64 lower-case hex digits"),
        (["--max-age", "-1"], "not in the range"),
        (["--require", "admin"], "'admin' is not one of"),
        (["--root-key", "none.pem"], "cannot be read"),
    ],
)
def test_what_can_not_be_asked_for_is_undetermined(
    tunegate: Run, pulled: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    ran = tunegate("verify", pulled, "--keys", tmp_path / "keys.json", *options, who=None)
    assert (ran.code, ran.out) == (UNKNOWN, "") and said in ran.err, ran


# -- what was seen ------------------------------------------------------------------------------------------------


def test_verify_remembers_what_it_saw_and_refuses_what_is_older(tunegate: Run, pulled: Path, tmp_path: Path) -> None:
    state = tmp_path / "state" / "seen.json"
    verify = ("verify", pulled, "--keys", tmp_path / "keys.json", "--state", state)
    assert tunegate(*verify, who=None).code == GO
    assert json.loads(state.read_text()) == {APPROVED: 2}
    state.write_text(f'{{"{APPROVED}": 3}}')
    ran = tunegate(*verify, who=None)
    assert ran.code == NO_GO and str(state) in ran.out and json.loads(state.read_text()) == {APPROVED: 3}
    state.write_text("{")
    ran = tunegate(*verify, who=None)
    assert ran.code == UNKNOWN and "restore it, or remove it" in ran.err


def test_pull_refuses_what_is_older_than_what_was_pulled_before(tunegate: Run, site: Site, tmp_path: Path) -> None:
    assert tunegate("pull", APPROVED, "--to", tmp_path / "first").code == GO
    (state,) = (tmp_path / "own" / "cache" / "seen").glob("*.json")
    assert json.loads(state.read_text()) == {APPROVED: 2}
    state.write_text(f'{{"{APPROVED}": 3}}')
    ran = tunegate("pull", APPROVED, "--to", tmp_path / "second")
    assert ran.code == NO_GO and "rollback" in ran.err and str(state) in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "own"], "nothing was kept"
    other = tunegate("pull", APPROVED, "--to", tmp_path / "second", "--state", tmp_path / "other.json")
    assert other.code == GO and json.loads((tmp_path / "other.json").read_text()) == {APPROVED: 2}


def test_pull_says_so_where_it_can_not_remember(tunegate: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = tunegate("pull", APPROVED, "--to", tmp_path / "bot", "--state", tmp_path / "file" / "seen.json")
    assert ran.code == UNKNOWN and "--state" in ran.err and not (tmp_path / "bot").exists()


def test_pull_checks_against_keys_of_ones_own(tunegate: Run, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.json"
    stranger.write_bytes(msgspec.json.encode(KeySet(keys=[Signer.generate().public])))
    ran = tunegate("pull", APPROVED, "--to", tmp_path / "bot", "--keys", stranger)
    assert ran.code == NO_GO and "none of the trusted keys" in ran.err and not (tmp_path / "bot").exists()


def test_pull_with_keys_takes_no_version_without_approval(tunegate: Run, site: Site, tmp_path: Path) -> None:
    ref = site.submit(fill=9)
    assert tunegate("keys", "--to", tmp_path / "keys.json").code == GO
    pull = ("pull", ref, "--to", tmp_path / "raw")
    ran = tunegate(*pull, "--keys", tmp_path / "keys.json", who="ci")
    assert ran.code == NO_GO and "attestation.json is missing" in ran.err and not (tmp_path / "raw").exists()
    assert "it is not approved" in tunegate(*pull, who="ci").out
    assert tunegate("pull", "support-bot/2", "--to", tmp_path / "two").code == GO, "a number is followed too"


# -- keys ---------------------------------------------------------------------------------------------------------


def test_a_key_file_under_a_root_is_the_only_one_taken_with_that_root(tunegate: Run, pulled: Path) -> None:
    folder = pulled.parent
    plain, signed = folder / "keys.json", folder / "signed.json"
    for name in ("root", "other"):
        assert tunegate("keys", "new", folder / f"{name}.pem", who=None).code == GO
    assert (folder / "root.pem").stat().st_mode & 0o077 == 0
    assert tunegate("keys", "sign", plain, "--root", folder / "root.pem", "--to", signed, who=None).code == GO
    verify = ("verify", pulled, "--keys")
    assert tunegate(*verify, signed, "--root-key", folder / "root.pem.pub", who=None).code == GO
    for given, said in (
        ([signed], "--root-key"),
        ([signed, "--root-key", folder / "other.pem.pub"], "the root key did not sign it"),
        ([plain, "--root-key", folder / "root.pem.pub"], "no root key signed it"),
        ([signed, "--root-key", folder / "root.pem"], "is no public key"),
        ([signed, "--root-key", plain], "is no public key"),
    ):
        ran = tunegate(*verify, *given, who=None)
        assert (ran.code, ran.out) == (UNKNOWN, "") and said in ran.err, ran
    again = tunegate("keys", "new", folder / "root.pem", who=None)
    assert again.code == UNKNOWN and "so that no key is lost" in again.err
    bad = tunegate("keys", "sign", plain, "--root", plain, "--to", signed, who=None)
    assert bad.code == UNKNOWN and "is no private key" in bad.err


def test_a_key_that_was_replaced_and_one_that_was_revoked(tunegate: Run, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running(home) as site:
        site.create_adapter()
        site.approved(tmp_path)
        assert tunegate("pull", APPROVED, "--to", tmp_path / "before", at=site).code == GO
        running_still = tunegate("keys", "rotate", who=None, home=home.root)
        assert running_still.code == UNKNOWN and "in use by another" in running_still.err
    assert "the gate signs with key" in tunegate("keys", "rotate", who=None, home=home.root).out
    with running(home) as site:
        keys = tmp_path / "keys.json"
        assert tunegate("keys", "--to", keys, at=site).code == GO
        assert tunegate("verify", tmp_path / "before", "--keys", keys, at=site).code == GO
        old, new = (one["id"] for one in json.loads(keys.read_bytes())["keys"])
        listed = tunegate("keys", at=site).out.splitlines()
        assert "until" in listed[0] and old[:16] in listed[0] and new[:16] in listed[1] and "until" not in listed[1]
        ran = tunegate("keys", "revoke", new, "--reason", "x", who="admin", at=site)
        assert ran.code == UNKNOWN and "this key signs now" in ran.err
        assert tunegate("keys", "revoke", old, "--reason", "disk stolen", who="ci", at=site).code == UNKNOWN
        assert tunegate("keys", "revoke", old, "--reason", "disk stolen", who="admin", at=site).code == GO
        assert "revoked" in tunegate("keys", at=site).out and "disk stolen" in tunegate("keys", at=site).out
        assert tunegate("keys", "--to", keys, at=site).code == GO
        assert "was revoked" in tunegate("verify", tmp_path / "before", "--keys", keys, at=site).out
        refused = tunegate("pull", APPROVED, "--to", tmp_path / "after", at=site)
        assert refused.code == NO_GO and "was revoked" in refused.err
        assert tunegate("promote", "support-bot/1", who="release-manager", at=site).code == GO
        assert tunegate("pull", APPROVED, "--to", tmp_path / "after", at=site).code == GO


# -- the second signature -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    rule = PromotionRule(second_signature=True)
    with running(Home(tmp_path_factory.mktemp("strict") / "home")) as found:
        found.create_adapter(policy=msgspec.structs.replace(SMALL_REVIEW, promotion=rule))
        found.submit()
        found.evaluate(tmp_path_factory.mktemp("rows"))
        found.review()
        yield found


def test_a_release_manager_signs_with_their_own_key_and_then_it_can_be_pulled(
    tunegate: Run, strict: Site, tmp_path: Path
) -> None:
    mine, public = tmp_path / "mine.pem", tmp_path / "mine.pem.pub"
    person = "release-manager person"
    assert tunegate("keys", "new", mine, who=None).code == GO
    sign = ("countersign", APPROVED, "--key", mine, "--yes")
    ran = tunegate(*sign, who="release-manager", at=strict)
    assert ran.code == UNKNOWN and "waits for a signature" in ran.err
    assert tunegate("keys", "add", public, "--person", "Rita", who="admin", at=strict).code == UNKNOWN
    assert "is no public key" in tunegate("keys", "add", mine, "--person", person, who="admin", at=strict).err
    assert tunegate("keys", "add", public, "--person", person, who="admin", at=strict).code == GO
    promoted = tunegate("promote", "support-bot/1", who="release-manager", at=strict)
    assert promoted.code == GO and "tunegate countersign support-bot@approved" in promoted.out
    assert tunegate("pull", APPROVED, "--to", tmp_path / "early", at=strict).code == UNKNOWN
    other = tmp_path / "other.pem"
    tunegate("keys", "new", other, who=None)
    ran = tunegate("countersign", APPROVED, "--key", other, "--yes", who="release-manager", at=strict)
    assert ran.code == UNKNOWN and "is not registered for" in ran.err
    assert "names no alias" in tunegate("countersign", "support-bot/1", "--key", mine, who="release-manager").err

    signed = tunegate(*sign, who="release-manager", at=strict)
    assert signed.code == GO and "support-bot@approved is now support-bot/1" in signed.out
    assert "is to become support-bot/1" in signed.out and "the gate says go" in signed.out
    assert tunegate("pull", APPROVED, "--to", tmp_path / "bot", at=strict).code == GO
    assert tunegate("keys", "--to", tmp_path / "keys.json", at=strict).code == GO
    verify = ("verify", tmp_path / "bot", "--keys")
    assert tunegate(*verify, tmp_path / "keys.json", "--require", "release-manager", who=None).code == GO
    document = json.loads((tmp_path / "keys.json").read_bytes())
    (tmp_path / "gate.json").write_text(json.dumps({"keys": document["keys"][:1]}))
    ran = tunegate(*verify, tmp_path / "gate.json", who=None)
    assert ran.code == NO_GO and "lacks the signature of a release-manager" in ran.out


def test_nothing_is_signed_without_a_yes(strict: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry.cli import cli

    strict.add_token("second", Role.RELEASE_MANAGER, "second manager")
    strict.client("second").promote("support-bot/1", "canary")
    (tmp_path / "mine.pem").write_bytes(Signer.generate().to_pem())
    head = strict.registry.journal.head
    arguments = ["--url", strict.url, "--token", strict.tokens["second"]]
    countersign = ["countersign", "support-bot@canary", "--key", str(tmp_path / "mine.pem")]
    ran = CliRunner().invoke(cli, [*arguments, *countersign], input="n\n")
    assert ran.exit_code == NO_GO and strict.registry.journal.head == head


def test_an_offline_rotation_needs_no_service(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running(home):
        pass
    assert len(rotate_key(home).keys) == 2
