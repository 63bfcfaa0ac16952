"""Two teams on one registry: a token of team-a learns nothing of team-b, on any route, not even that it exists."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from factories import SUITES, entry_of, make_adapter, make_training, rows_and_evidence
from litestar.routes import HTTPRoute
from site_under_test import LEDGER, Site, body, running

from evaluator.evidence import write_rows
from registry.api.app import create_app
from registry.api.limits import Rate, Rates
from registry.client import Refused
from registry.names import sha256_hex
from registry.records import Role, SubmitVersion
from registry.settings import Home

pytestmark = pytest.mark.slow

MINE, THEIRS = "team-a/bot", "team-b/secret-bot"
CONFIG = "adapter_config.json"  # the same in every version here
SECRET_FILES = {**make_adapter(fill=77), "README.md": b"How team-b does it"}
SECRET_HASHES = {sha256_hex(data) for path, data in SECRET_FILES.items() if path != CONFIG}
SECRET_DATA = b'{"use": "train", "messages": [{"role": "user", "content": "What only team-b knows"}]}'
# Open to everyone by design: what suites, keys and the service itself are.
SHARED = set("/v1/suites /v1/keys /healthz /readyz /metrics /schema /schema/openapi.json /schema/{path:str}".split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Each team has an adapter with an approved version; team-b's has files and data of its own."""
    rows = tmp_path_factory.mktemp("rows")
    rates = Rates(failures=Rate(1e6, 1e6), creations=Rate(1e6, 1e6))
    with running(Home(tmp_path_factory.mktemp("tenants") / "home"), rates=rates) as found:
        for name in (MINE, THEIRS):
            found.create_adapter(name)
        ref = found.submit(MINE)
        found.evaluate(rows)
        found.review()
        found.client("release-manager").promote(ref)
        client = found.client("ci")
        record = make_training(dataset=SECRET_DATA, ledger=LEDGER)
        files = [entry_of(path, data) for path, data in SECRET_FILES.items()]
        created = client.submit(THEIRS, SubmitVersion(files=files, training=record, notes="what only team-b knows"))
        for data in (*SECRET_FILES.values(), SECRET_DATA, LEDGER):
            client.upload(data)
        client.complete(created.ref)
        found.evaluate(rows)
        found.review()
        found.client("release-manager").promote(created.ref)
        for team in ("team-a", "team-b"):
            for role in Role:
                found.add_token(f"{team} {role}", role, f"{role} of {team}", scope=team)
        issuer = {"issuer": "https://ci.example", "jwks_url": "https://ci.example/keys"}
        for path, made in (
            ("/v1/publishers", {"scope": THEIRS, "claims": {"sub": "s"}, **issuer}),
            ("/v1/webhooks", {"scope": "team-b", "url": "https://hooks.example/team-b", "events": ["version.revoked"]}),
        ):
            assert found.http("POST", path, "team-b admin", json=made).status_code == 201
        yield found


def secrets_of_theirs(site: Site) -> list[str]:
    """Words that no answer to team-a may hold: names, digests, people."""
    info = site.client("admin").version(f"{THEIRS}/1")
    return ["team-b", "secret-bot", "what only", info.digest, *SECRET_HASHES, sha256_hex(SECRET_DATA)]


def everything(site: Site) -> Iterator[tuple[str, str]]:
    """Every route, filled in with what is team-b's wherever it takes a name."""
    job = site.registry.view().job_of(THEIRS, 1)
    campaign = site.registry.view().campaign_of(THEIRS, 1)
    assert job is not None and campaign is not None
    assignment = site.registry.view().assignments(campaign.id)[0].id
    token = next(one.id for one in site.client("admin").tokens() if one.scope == "team-b")
    (publisher,), (webhook,) = (site.http("GET", path).json() for path in ("/v1/publishers", "/v1/webhooks"))
    values = {
        "{name:str}/{second:str}": THEIRS,
        "{name:str}": THEIRS,
        "{number:int}": "1",
        "{alias:str}": "approved",
        "{digest:str}": "sha256:" + sorted(SECRET_HASHES)[0],
        "{job_id:str}": job.id,
        "{assignment:str}": assignment,
        "{token_id:str}": token,
        "{publisher_id:str}": publisher["id"],
        "{webhook_id:str}": webhook["id"],
    }
    for route in create_app(site.registry).routes:
        assert isinstance(route, HTTPRoute)
        if route.path in SHARED or "{second:str}" in route.path:
            continue
        path = route.path
        for placeholder, value in values.items():
            path = path.replace(placeholder, value)
        for method in sorted(route.methods - {"OPTIONS"}):
            yield method, path


def asked(site: Site, method: str, path: str, who: str) -> httpx.Response:
    """As a client and as a browser would ask it."""
    query = {"suite": "x"} if path.endswith("/items") else {"ref": f"{THEIRS}/1"} if path == "/v1/resolve" else None
    return site.http(method, path, who, params=query, headers={"Cookie": f"tunegate_token={site.tokens[who]}"})


def shown(answer: httpx.Response, asked: str) -> str:
    """What an answer says beyond what was asked."""
    text = answer.text + str(dict(answer.headers))
    for part in (asked, asked.partition("/v1/adapters/")[2], asked.partition("/v1/blobs/sha256:")[2], THEIRS):
        text = text.replace(part, "") if part else text
    return text


@pytest.mark.parametrize("role", list(Role))
def test_no_answer_to_the_other_team_names_anything_of_theirs(site: Site, role: Role) -> None:
    words, told = secrets_of_theirs(site), []
    hidden_ids = [site.http("GET", path).json()[0]["id"] for path in ("/v1/publishers", "/v1/webhooks")]
    hidden_ids += [one.id for one in site.client("admin").tokens() if one.scope == "team-b"]
    hidden_ids += [job.id for job in [site.registry.view().job_of(THEIRS, 1)] if job]
    for method, path in everything(site):
        answer = asked(site, method, path, f"team-a {role}")
        told += [f"{method} {path}: {word}" for word in words if word in shown(answer, path)]
        if any(one in path for one in (THEIRS, *hidden_ids)) and answer.status_code < 400:
            told.append(f"{method} {path}: {answer.status_code}")
    assert not told


def test_the_same_questions_are_answered_to_their_own_team(site: Site) -> None:
    """So the silence above is not that of a broken test."""
    words = secrets_of_theirs(site)
    heard = set()
    for method, path in everything(site):
        if method == "GET":
            answer = asked(site, method, path, "team-b admin")
            heard |= {path for word in words if word in shown(answer, path)}
    wanted = {"/versions", "/versions/1", "/versions/1/gate", "/versions/1/bundle", "/aliases/approved"}
    assert heard >= {f"/v1/adapters/{THEIRS}{tail}" for tail in wanted} | {
        *("/", "/v1/resolve", "/v1/tokens", "/v1/publishers", "/v1/webhooks")
    }


def test_references_to_theirs_in_every_form_are_unknown(site: Site) -> None:
    digest = site.client("admin").version(f"{THEIRS}/1").digest
    for role in Role:
        for tail in ("/1", "@approved", "@latest", f"@{digest}", ""):
            hidden = site.http("GET", "/v1/resolve", f"team-a {role}", params={"ref": THEIRS + tail})
            unknown = site.http("GET", "/v1/resolve", f"team-a {role}", params={"ref": "team-b/no-bot" + tail})
            assert hidden.status_code == unknown.status_code == 404
            assert hidden.text.replace(THEIRS, "X") == unknown.text.replace("team-b/no-bot", "X")


# -- blobs: whoever only knows a hash knows nothing -------------------------------------------------------------------


def files_of(contents: dict[str, bytes]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(entry_of(path, data)) for path, data in contents.items()]


def announce(site: Site, who: str, contents: dict[str, bytes], **more: Any) -> dict[str, Any]:
    answer = site.http("POST", f"/v1/adapters/{MINE}/versions", who, json={"files": files_of(contents), **more})
    assert answer.status_code in (200, 201), answer.text
    return body(answer)


def put(site: Site, who: str, data: bytes, claimed: bytes | None = None, **headers: str) -> httpx.Response:
    digest = sha256_hex(data if claimed is None else claimed)
    return site.http("PUT", f"/v1/blobs/sha256:{digest}", who, content=data, headers=headers)


def test_announcing_their_files_neither_tells_nor_gives_them(site: Site) -> None:
    """The way in of a store that keeps equal bytes once: name a hash that you have read somewhere."""
    mine = announce(site, "team-a ci", SECRET_FILES)
    assert set(mine["missing"]) == SECRET_HASHES
    again = announce(site, "team-a ci", SECRET_FILES)
    assert set(again["missing"]) == SECRET_HASHES, "an announcement is no possession"
    for sha256 in SECRET_HASHES:
        for role in ("ci", "trainer", "admin", "evaluator"):
            assert site.http("GET", f"/v1/blobs/sha256:{sha256}", f"team-a {role}").status_code == 404
    number = mine["number"]
    sealed = site.http("POST", f"/v1/adapters/{MINE}/versions/{number}/complete", "team-a ci")
    assert sealed.status_code == 422 and "still misses" in body(sealed)["detail"]
    training = msgspec.to_builtins(make_training(dataset=SECRET_DATA, ledger=LEDGER))
    other = announce(site, "team-a trainer", make_adapter(fill=78), training=training)
    assert sha256_hex(SECRET_DATA) in other["missing"]
    assert site.http("GET", f"/v1/blobs/sha256:{sha256_hex(SECRET_DATA)}", "team-a trainer").status_code == 404


def test_an_upload_without_the_bytes_says_the_same_whether_they_are_there(site: Site) -> None:
    there, absent = SECRET_FILES["README.md"], b"nowhere at all"
    for sent in (b"", b"guess"):
        told = []
        for claimed in (there, absent):
            answer = put(site, "team-a ci", sent, claimed)
            assert answer.status_code == 422
            told.append(answer.text.replace(sha256_hex(claimed), "X"))
        assert told[0] == told[1]
    # Whoever sees everything need not send what is there.
    assert put(site, "ci", b"", there).status_code in (200, 422)
    assert site.http("PUT", f"/v1/blobs/sha256:{sha256_hex(there)}", "ci", content=there).status_code == 200


def test_who_sends_the_bytes_has_them_like_any_others(site: Site) -> None:
    contents = {**make_adapter(fill=79), "README.md": b"what team-a has too"}
    own = [data for path, data in contents.items() if path != CONFIG]
    for data in own:
        site.client("ci").upload(data)
    head = site.registry.journal.head
    created = announce(site, "team-a ci", contents)
    assert set(created["missing"]) == {sha256_hex(data) for data in own}
    for data in own:
        assert put(site, "team-a ci", data).status_code == 201
        assert put(site, "team-a ci", data).status_code == 200, "known by now"
    assert site.registry.journal.head.seq == head.seq + 1 + len(own), "each was told once"
    done = site.http("POST", f"/v1/adapters/{MINE}/versions/{created['number']}/complete", "team-a ci")
    assert done.status_code == 200
    for data in own:
        assert site.http("GET", f"/v1/blobs/sha256:{sha256_hex(data)}", "team-a ci").status_code == 200
        assert site.http("GET", f"/v1/blobs/sha256:{sha256_hex(data)}", "team-b ci").status_code == 404
        assert put(site, "team-b ci", b"", data).status_code == 422, "what team-a proved is not proved for team-b"


def test_a_part_that_another_team_left_can_be_neither_seen_nor_finished(site: Site) -> None:
    data = b"the first half and " + b"the second half"
    half = len(b"the first half and ")
    theirs = {"Content-Range": f"bytes 0-{half - 1}/{len(data)}"}
    assert put(site, "team-b ci", data[:half], data, **theirs).status_code == 202
    rest = {"Content-Range": f"bytes {half}-{len(data) - 1}/{len(data)}"}
    refused = put(site, "team-a ci", data[half:], data, **rest)
    assert refused.status_code == 416 and body(refused)["offset"] == 0
    assert put(site, "team-b ci", data[half:], data, **rest).status_code == 201
    assert put(site, "team-a ci", data[half:], data, **rest).status_code == 416


def test_evidence_is_of_rows_that_the_worker_sent(site: Site, tmp_path: Path) -> None:
    """Equal rows of another team are no evidence, and whether they are there does not show."""
    site.submit(MINE, fill=80)
    worker = site.client("team-a evaluator")
    job = worker.claim(["evaluation"], "w")
    assert job is not None
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, evidence = rows_and_evidence(suites, job.digest, job.policy, lost=3)
    write_rows(tmp_path / "rows.parquet", rows)
    stored = site.client("evaluator").upload(tmp_path / "rows.parquet")
    evidence = msgspec.structs.replace(evidence, rows=stored.sha256)
    with pytest.raises(Refused, match="upload the per-item rows first"):
        worker.post_evidence(job, evidence)
    worker.upload(tmp_path / "rows.parquet")
    assert worker.post_evidence(job, evidence).state == "done"
