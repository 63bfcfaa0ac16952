"""Trusted publishing from the command line, as an admin sets it up and a CI uses it."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from ci_under_test import CLAIMS, ISSUER, Issuer, claims_at
from site_under_test import Site, running

from registry.cli import main
from registry.settings import Home

KEY = Issuer("ES256")
ADD = f"publisher add --scope team/bot --issuer {ISSUER}".split()


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("publishers") / "home")) as found:
        found.create_adapter("team/bot")
        yield found


@pytest.fixture
def tunegate(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object, token: str | None = None) -> Ran:
        monkeypatch.setenv("TUNEGATE_URL", site.url)
        monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["admin"] if token is None else token)
        capsys.readouterr()
        code = 0
        try:
            main([str(one) for one in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [KEY.public_fields | {"x5t": "more than is read"}]}))
    return path


def ci_token(folder: Path) -> Path:
    path = folder / "oidc.jwt"
    path.write_text(KEY.token(claims_at(datetime.now(UTC))) + "\n")
    return path


def test_the_whole_way_from_trust_to_a_token_and_back(tunegate: Run, jwks: Path, tmp_path: Path) -> None:
    claims = [f"--claim={name}={CLAIMS[name]}" for name in ("repository", "repository_owner_id", "sub")]
    added = tunegate(*ADD, "--jwks", jwks, *claims)
    assert added.code == 0 and "team/bot" in added.out
    listed = tunegate("publisher", "list")
    assert "repository_owner_id=65" in listed.out and CLAIMS["sub"] in listed.out
    minted = tunegate("token", "mint", "--oidc-token-file", ci_token(tmp_path), token="")
    assert minted.code == 0, minted.err
    secret = minted.out.strip()
    assert secret.startswith("tg_ci_") and "\n" not in secret
    assert tunegate("adapter", "list", token=secret).code == 0
    used = tunegate("token", "list", token=secret).out
    assert "used " in used and "team/bot" in used
    again = tunegate("token", "mint", "--oidc-token-file", tmp_path / "oidc.jwt")
    assert (again.code, again.out) == (3, "") and "exchanged before" in again.err
    removed = tunegate("publisher", "remove", json.loads(tunegate("--json", "publisher", "list").out)[0]["id"])
    assert removed.code == 0 and tunegate("adapter", "list", token=secret).code == 3
    assert tunegate("publisher", "list").out.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--jwks-url", "https://ci.example/keys"], "name some"),
        (["--jwks-url", "https://ci.example/keys", "--claim", "repository"], "NAME=VALUE"),
        (["--jwks-url", "https://ci.example/keys", "--claim", "repository=acme/bots"], "repository_owner_id"),
        (["--jwks-url", "http://ci.example/keys", "--claim", "sub=x"], "https"),
        (["--claim", "sub=x"], "either"),
        (["--jwks", "/nowhere/jwks.json", "--claim", "sub=x"], "cannot be read"),
        (["--jwks", __file__, "--claim", "sub=x"], "no JSON Web Key Set"),
    ],
)
def test_what_cannot_be_trusted_is_refused_in_one_message(tunegate: Run, arguments: list[str], word: str) -> None:
    ran = tunegate(*ADD, *arguments)
    assert (ran.code, ran.out) == (3, "") and word in " ".join(ran.err.split()), ran.err
    assert "Traceback" not in ran.err


def test_a_file_that_holds_no_token_is_refused(tunegate: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    for path, word in ((tmp_path / "empty", "not a JSON Web Token"), (tmp_path / "none", "cannot be read")):
        ran = tunegate("token", "mint", "--oidc-token-file", path)
        assert (ran.code, ran.out) == (3, "") and word in ran.err


def test_revoking_by_the_whole_token_sends_its_id_only(tunegate: Run, site: Site) -> None:
    secret = tunegate(*"token create --role ci --person carl".split()).out.strip()
    ran = tunegate("token", "revoke", secret)
    assert ran.code == 0 and secret not in ran.out
    assert tunegate("adapter", "list", token=secret).code == 3


@pytest.mark.parametrize(
    ("role", "days", "code"), [("ci", 90, 0), ("ci", 91, 3), ("consumer", 365, 0), ("consumer", 366, 3)]
)
def test_a_token_lives_for_a_year_at_most_and_a_cis_for_ninety_days(
    tunegate: Run, role: str, days: int, code: int
) -> None:
    assert tunegate("token", "create", "--role", role, "--person", "carl", "--days", days).code == code
