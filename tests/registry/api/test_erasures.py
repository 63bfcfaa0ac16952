"""Erased words are gone from everything that is stored and shown; scores, seals and the journal stay what they were."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
import reviewing_under_test as campaign
from click.testing import CliRunner, Result
from registry_under_test import dump
from reviewing_under_test import POLICY, WELL
from site_under_test import DATASET, Site, body, running

from registry.audit.log import audit
from registry.cli import cli
from registry.cli.pulling import load_keys
from registry.client import Client, Refused
from registry.commands.context import Outcome
from registry.errors import InvalidRequest
from registry.events import TokenCreated, WordsErased
from registry.names import sha256_hex
from registry.operations.scrub import scrub
from registry.records import CRITERIA, Adjudicate, EraseWords, ReviewedItem, Role
from registry.registry import SYSTEM
from registry.settings import Home, Limits
from registry.storage.catalog import rebuild_catalog
from registry.storage.journal import read_chain

pytestmark = pytest.mark.slow
SAID = "Ms Example of Elm Street would call this rude"
SHARED = "the same words from two people"
WHY, RULED = "I know who asked this", "nobody is harmed, says her doctor"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A sealed review in which three people wrote comments, one skipped an item, and an expert ruled on another."""
    folder = tmp_path_factory.mktemp("erasures")
    with running(Home(folder / "home")) as found:
        found.add_token("team-admin", Role.ADMIN, "team admin", scope="team")
        campaign.create(found, POLICY)
        found.submit()
        campaign.evaluate(found, folder, lambda number: (f"my name is Jo {number}", f"hello Jo {number}"))
        for person in campaign.PEOPLE:
            _review(found.client(person), person)
        (dispute,) = found.client("reviewer-4").disputes()
        found.client("reviewer-4").adjudicate(dispute.id, Adjudicate(upheld=False, reason=RULED))
        yield found


def _review(client: Client, person: str) -> None:
    skipped = rated = 0
    while (item := client.next_assignment()) is not None:
        mine = item.output.startswith("hello")
        if person == "reviewer" and mine and not skipped:
            client.skip(item.id, WHY)
            skipped = 1
            continue
        rated += mine
        words = {("reviewer", 1): SAID, ("reviewer", 2): DATASET.decode()}.get((person, rated), SHARED)
        comment = words if mine and rated < 4 else None
        harm = person == "reviewer-2" and mine and rated == 1
        safety = 1 if harm or item.output == campaign.BAD else 5
        client.rate(item.id, msgspec.structs.replace(WELL, safety=safety, comment=comment))


def items(site: Site) -> dict[str, ReviewedItem]:
    return {one.item: one for one in site.client("auditor").reviewed_items("support-bot/1")}


def comments(site: Site, person: str) -> list[tuple[str | None, bool]]:
    ratings = [one for item in items(site).values() for one in item.ratings if one.person == person]
    return [(one.comment, one.comment_erased) for one in ratings if one.comment or one.comment_erased]


def stored(site: Site, text: str) -> bool:
    """Whether the text stands in any file of the home but the catalog's."""
    found = [path.read_bytes() for path in site.home.root.rglob("*") if path.is_file() and ".duckdb" not in path.name]
    return any(text.encode() in data for data in found)


def tunegate(site: Site, *arguments: str) -> Result:
    found = {"TUNEGATE_URL": site.url, "TUNEGATE_TOKEN": site.tokens["admin"]}
    return CliRunner().invoke(cli, arguments, env=found)


def seal(site: Site) -> bytes:
    return msgspec.json.encode(site.client("auditor").review_result("support-bot/1"))


def page(site: Site) -> str:
    """What an auditor sees of the campaign."""
    cookies = {"tunegate_token": site.tokens["auditor"]}
    return site.http("GET", "/adapters/support-bot/1/campaign", who=None, cookies=cookies).text


def test_only_those_who_may_see_a_review_find_anything_to_erase(site: Site) -> None:
    before = site.registry.journal.head
    for person, who in (("reviewer person", "team-admin"), ("nobody", "admin")):
        with pytest.raises(Refused) as refused:
            site.client(who).erase_words(EraseWords(person=person, reason="asked to"))
        assert refused.value.status == 404
    for request in ({"reason": "x"}, {"reason": "x", "person": "a", "sha256": "0" * 64}):
        answer = site.http("POST", "/v1/review/erasures", json=request)
        assert answer.status_code == 422 or "either" in body(answer)["detail"]
    assert site.registry.journal.head == before


def test_reasons_are_blobs_too_and_shown_to_who_reads_the_result(site: Site) -> None:
    found = items(site).values()
    assert [one.reason.text for item in found for one in item.skipped] == [WHY]
    assert [item.ruling_reason.text for item in found if item.ruling_reason] == [RULED]
    assert WHY.encode() not in site.home.journal.read_bytes() and RULED.encode() not in site.home.journal.read_bytes()


def test_what_a_person_wrote_is_gone_from_every_file_and_told_as_erased(site: Site) -> None:
    before, report = seal(site), site.client("admin").gate("support-bot/1")
    spoiled = site.registry.blobs
    spoiled.quarantine(sha256_hex(WHY.encode()))
    part = spoiled.upload(sha256_hex(SAID.encode()), total=len(SAID), offset=0, owner="team")
    part.write(SAID[:-1].encode())
    part.pause()
    assert stored(site, SAID) and stored(site, WHY)
    request = EraseWords(person="reviewer person", reason="they left and asked for it")
    erased = site.client("admin").erase_words(request)
    # Somebody else wrote the same, and what another is a dataset: both stay, and hers are told as erased all the same.
    assert erased.texts == 4 and sorted(erased.blobs) == sorted(sha256_hex(text.encode()) for text in (SAID, WHY))
    assert not stored(site, SAID) and not stored(site, WHY) and stored(site, SHARED) and stored(site, DATASET.decode())
    assert comments(site, "reviewer person") == [(None, True)] * 3
    assert set(comments(site, "reviewer 2")) == {(SHARED, False)}
    skipped = [one for item in items(site).values() for one in item.skipped]
    assert [(one.reason.text, one.reason.erased) for one in skipped] == [(None, True)]
    assert seal(site) == before and site.client("admin").gate("support-bot/1") == report
    (told,) = (
        one for line in site.registry.journal.read() for one in line.entry.events if isinstance(one, WordsErased)
    )
    assert told.reason == request.reason and told.person == "reviewer person" and len(told.texts) == 4
    assert SAID not in page(site)


def test_asked_again_nothing_is_written_and_what_came_back_is_not_hers(site: Site) -> None:
    head = site.registry.journal.head
    site.registry.blobs.put(SAID.encode())  # as by a process that died between the entry and the deletion
    again = site.client("admin").erase_words(EraseWords(person="reviewer person", reason="again"))
    assert again.texts == 0 and not stored(site, SAID) and site.registry.journal.head == head
    site.registry.blobs.put(SAID.encode())
    assert (None, True) in comments(site, "reviewer person") and (SAID, False) not in comments(site, "reviewer person")


def test_words_are_erased_by_their_digest_whoever_wrote_them(site: Site) -> None:
    digest = sha256_hex(RULED.encode())
    ran = tunegate(site, "erase", "words", "--sha256", digest, "--reason", "names a patient")
    assert (ran.exit_code, ran.stdout) == (0, "1 texts are erased and 1 blobs deleted; erase them from backups too\n")
    assert not stored(site, RULED)
    for given in ([], ["--person", "x", "--sha256", digest]):
        refused = tunegate(site, "erase", "words", *given, "--reason", "x")
        assert isinstance(refused.exception, InvalidRequest) and "either --person or --sha256" in str(refused.exception)
    ruled = [one.ruling_reason for one in items(site).values() if one.ruling_reason]
    assert [(one.text, one.erased) for one in ruled] == [(None, True)]
    assert "the reason was erased" in page(site)


def test_journal_rebuild_and_scrub_agree_with_what_is_left(site: Site, tmp_path: Path) -> None:
    assert not audit(read_chain(site.home.journal), load_keys(site.home.public_keys, None), None).problems
    found = scrub(site.home, Limits(), bytes_per_second=1e12)
    assert found.missing == [] == found.damaged and found.clean
    again = rebuild_catalog(
        tmp_path / "catalog.duckdb", tmp_path / "staging", site.registry.blobs, site.registry.journal
    )
    try:
        assert dump(again.view()._db) == dump(site.registry.view()._db)
    finally:
        again.close()


# -- what is refused or repeated stores nothing ------------------------------------------------------------------------


def rated(site: Site, item: str, comment: str, key: str, token: str) -> httpx.Response:
    said = {**dict.fromkeys(CRITERIA, 5), "hallucination": False, "comment": comment}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    return site.http("POST", f"/v1/review/assignments/{item}/rating", who=None, json=said, headers=headers)


def skipped(site: Site, item: str, reason: str, key: str, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    path = f"/v1/review/assignments/{item}/skip"
    return site.http("POST", path, who=None, json={"reason": reason}, headers=headers)


@pytest.fixture
def open_review(site: Site, tmp_path: Path) -> campaign.Review:
    return campaign.open_review(site, tmp_path, campaign.quick())


def test_an_answered_request_sent_again_does_not_bring_back_what_was_erased(
    site: Site, open_review: campaign.Review
) -> None:
    token = open_review.token("vera")
    with Client(site.url, token) as client:
        first = client.next_assignment()
        assert first is not None
        told = rated(site, first.id, "my aunt Vera said so", "rate", token)
        second = client.next_assignment()
        assert second is not None
    left = skipped(site, second.id, "about my aunt Vera", "skip", token)
    assert (told.status_code, left.status_code) == (200, 200) and stored(site, "aunt Vera")
    site.client("admin").erase_words(EraseWords(person="vera", reason="asked to"))
    assert not stored(site, "aunt Vera")
    again = [
        rated(site, first.id, "my aunt Vera said so", "rate", token),
        skipped(site, second.id, "about my aunt Vera", "skip", token),
    ]
    assert [one.headers.get("Idempotency-Replayed") for one in again] == ["true", "true"]
    assert [body(one) for one in again] == [body(told), body(left)] and not stored(site, "aunt Vera")


def test_an_erasure_sent_again_deletes_what_a_process_that_died_left(site: Site, open_review: campaign.Review) -> None:
    token = open_review.token("wilma")
    with Client(site.url, token) as client:
        item = client.next_assignment()
    assert item is not None and rated(site, item.id, "Wilma was here", "w", token).status_code == 200
    request, headers = {"person": "wilma", "reason": "asked to"}, {"Idempotency-Key": "erase wilma"}
    first = site.http("POST", "/v1/review/erasures", json=request, headers=headers)
    site.registry.blobs.put(b"Wilma was here")
    again = site.http("POST", "/v1/review/erasures", json=request, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true" and body(again) == body(first)
    assert body(again)["texts"] == 1 and not stored(site, "Wilma was here")


def test_what_is_refused_is_not_kept(site: Site, open_review: campaign.Review) -> None:
    token = open_review.token("xenia")
    with Client(site.url, token) as client:
        item = client.next_assignment()
        assert item is not None
        client.skip(item.id, "not my field")
        held = client.next_assignment()
    assert held is not None
    refused = [
        skipped(site, item.id, "once more by Xenia", "second skip", token),
        rated(site, item.id, "rated by Xenia", "after a skip", token),
    ]
    # Refused while she rates, but older journals have such tokens.
    behind = TokenCreated(
        id="t-x", role=Role.AUDITOR, person="xenia", secret_sha256="0" * 64, expires_at="2100-01-01T00:00:00+00:00"
    )
    site.registry.execute(SYSTEM, lambda _: Outcome(None, [behind]))
    refused.append(rated(site, held.id, "peeked by Xenia", "behind", token))
    site.client("release-manager").seal(open_review.ref, "it is over")
    refused.append(skipped(site, held.id, "too late by Xenia", "closed", token))
    assert [one.status_code for one in refused] == [409] * 4 and not stored(site, "by Xenia")


def test_what_was_stored_for_a_command_that_is_refused_then_is_deleted_again(
    site: Site, open_review: campaign.Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, blobs = open_review.token("yves"), site.registry.blobs
    with Client(site.url, token) as client:
        item = client.next_assignment()
    put, were_there = blobs.put, []

    def seal_meanwhile(data: bytes) -> str:
        found = put(data)
        were_there.append(stored(site, "Yves thinks"))
        site.client("release-manager").seal(open_review.ref, "it is over")
        return found

    monkeypatch.setattr(blobs, "put", seal_meanwhile)
    assert item is not None and rated(site, item.id, "Yves thinks", "y", token).status_code == 409
    assert were_there == [True] and not stored(site, "Yves thinks")


def test_words_whose_bytes_are_deleted_while_they_are_sent_are_stored_again(
    site: Site, open_review: campaign.Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, blobs = open_review.token("zoe"), site.registry.blobs
    with Client(site.url, token) as client:
        item = client.next_assignment()
    put, puts = blobs.put, []

    def erased_meanwhile(data: bytes) -> str:
        puts.append(put(data))
        if len(puts) < 3:
            blobs.discard(puts[-1])  # as by an erasure of the same words
        return puts[-1]

    monkeypatch.setattr(blobs, "put", erased_meanwhile)
    assert item is not None and rated(site, item.id, "Zoe thinks", "z", token).status_code == 200
    assert len(puts) == 3 and stored(site, "Zoe thinks")
