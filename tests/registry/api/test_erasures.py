"""Erased texts are gone from everything that is stored and shown; scores, seals and the journal stay what they were."""

import json
from collections.abc import Iterator
from pathlib import Path

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
from registry.errors import InvalidRequest
from registry.events import AnyEvent, CampaignOpened, OutputErased, WordsErased
from registry.names import sha256_hex
from registry.operations.scrub import scrub
from registry.records import Adjudicate, EraseOutput, EraseWords, ReviewedItem, Role
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


def events(site: Site) -> list[AnyEvent]:
    return [one for line in site.registry.journal.read() for one in line.entry.events]


def tunegate(site: Site, *arguments: str) -> Result:
    found = {"TUNEGATE_URL": site.url, "TUNEGATE_TOKEN": site.tokens["admin"]}
    return CliRunner().invoke(cli, arguments, env=found)


def seal(site: Site) -> bytes:
    return msgspec.json.encode(site.client("auditor").review_result("support-bot/1"))


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
    page = site.http(
        "GET", "/adapters/support-bot/1/campaign", who=None, cookies={"tunegate_token": site.tokens["auditor"]}
    )
    assert "erased" in page.text and SAID not in page.text


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


def test_an_output_is_gone_from_the_results_and_its_scores_stay(site: Site, tmp_path: Path) -> None:
    client, before = site.client("admin"), seal(site)
    (item, *_) = (name for name, one in items(site).items() if one.output and one.output.startswith("hello"))
    number = item.rpartition("/i")[2].lstrip("0") or "0"
    rows = site.registry.view().rows_now("support-bot", 1)
    assert rows is not None and site.registry.blobs.has(rows)
    erased = client.erase_output("support-bot/1", EraseOutput(item=item, reason="Jo asked for it"))
    assert erased.blobs == [rows] and not site.registry.blobs.has(rows)
    shown = items(site)[item]
    assert (shown.prompt, shown.output) == (None, None) and len(shown.ratings) >= 2 and seal(site) == before
    kept = site.registry.view().rows_now("support-bot", 1)
    assert kept is not None and kept != rows
    texts = {one.prompt for one in site.registry.services.read_rows(kept)} - {None}
    assert f"my name is Jo {number}" not in texts and "[erased]" in texts and len(texts) > 50
    # Others of the same results are there, the catalog's own rows are those of the blob, and again is not an error.
    assert sum(one.output is not None for one in items(site).values()) == len(items(site)) - len(
        [one for one in items(site).values() if one.item.startswith(item)]
    )
    again = tunegate(site, "--json", "erase", "output", "support-bot/1", item, "--reason", "again")
    assert json.loads(again.stdout) == {"texts": 0, "blobs": [rows]}
    with pytest.raises(Refused, match="has no text"):
        client.erase_output("support-bot/1", EraseOutput(item="support-desk/pilot/i9999", reason="x"))


def test_journal_rebuild_and_scrub_agree_with_what_is_left(site: Site, tmp_path: Path) -> None:
    assert not audit(read_chain(site.home.journal), load_keys(site.home.public_keys, None), None).problems
    found = scrub(site.home, Limits(), bytes_per_second=1e12)
    assert found.missing == [] == found.damaged
    again = rebuild_catalog(
        tmp_path / "catalog.duckdb", tmp_path / "staging", site.registry.blobs, site.registry.journal
    )
    try:
        assert dump(again.view()._db) == dump(site.registry.view()._db)
    finally:
        again.close()


def test_what_people_judge_at_this_moment_is_not_taken_from_under_them(site: Site, tmp_path: Path) -> None:
    review = campaign.open_review(site, tmp_path, campaign.quick())
    with Client(site.url, review.token()) as client:
        assert client.next_assignment() is not None
    drawn = [one for one in events(site) if isinstance(one, CampaignOpened)][-1]
    item = next(one.item for one in drawn.items if one.kind == "candidate")
    with pytest.raises(Refused, match="end it first") as refused:
        site.client("admin").erase_output(review.ref, EraseOutput(item=item, reason="asked to"))
    assert refused.value.status == 409
    site.client("release-manager").seal(review.ref, "it is over")
    site.client("admin").erase_output(review.ref, EraseOutput(item=item, reason="asked to"))
    told = [one for one in events(site) if isinstance(one, OutputErased)]
    assert told[-1].item == item.rpartition("/")[2]
