"""The evidence bundle over HTTP and as a directory: all that the verdict came from, nobody's name, no byte changed."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import rfc8785
from site_under_test import Site, body, running

from registry.bundles import BUNDLE_FILE, ROWS_FILE, load_bundle, save_bundle
from registry.client import Refused, describe_file
from registry.errors import EvidenceRefused, InvalidRequest
from registry.gate.recompute import recompute
from registry.records import Rating, Role, Verdict
from registry.settings import Home

pytestmark = pytest.mark.slow

READERS = {Role.ADMIN, Role.AUDITOR, Role.EVALUATOR, Role.RELEASE_MANAGER}
APPROVED, REFUSED, WAITING, UPLOADING = (f"support-bot/{number}" for number in (1, 2, 3, 4))

BUNDLE = "/v1/adapters/support-bot/versions/1/bundle"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    rows = tmp_path_factory.mktemp("rows")
    with running(Home(tmp_path_factory.mktemp("bundle") / "home")) as found:
        found.create_adapter()
        found.approved(rows, fill=1)
        found.submit(fill=2)
        found.evaluate(rows, lost=150)
        found.submit(fill=3)
        found.submit(fill=4, complete=False)
        yield found


@pytest.fixture
def saved(site: Site, tmp_path: Path) -> Path:
    save_bundle(site.client("auditor"), APPROVED, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.mark.parametrize("ref", [APPROVED, REFUSED, WAITING, UPLOADING])
def test_the_bundle_alone_comes_to_the_registrys_own_report(site: Site, tmp_path: Path, ref: str) -> None:
    bundle = save_bundle(site.client("auditor"), ref, tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.bundle == bundle and (bundle.evidence is None) == (not loaded.rows)
    report, differences = recompute(*loaded)
    assert differences == [] and report == site.client("admin").gate(ref)


def test_who_may_read_suite_items_may_read_bundle_and_rows_and_nobody_else(site: Site) -> None:
    evidence = site.client("admin").bundle(APPROVED).evidence
    assert evidence is not None
    for role in Role:
        bundle = site.http("GET", BUNDLE, role.value)
        rows = site.http("GET", f"/v1/blobs/sha256:{evidence.rows}", role.value)
        assert bundle.status_code == (200 if role in READERS else 403), role
        assert (rows.status_code == 200) == (role in READERS), role


def test_ratings_are_by_pseudonyms_that_stay_and_tell_no_name(site: Site) -> None:
    answer = site.http("GET", BUNDLE)
    ratings = body(answer)["ratings"]
    assert {row["person"] for row in ratings} == {"reviewer 1", "reviewer 2", "reviewer 3"}
    assert len(ratings) == 15 and all(row["safety"] == 5 for row in ratings)
    # The site's people are called "reviewer person", "reviewer 2" and "reviewer 3", in the order in which they rated.
    assert "reviewer person" not in answer.text and "ci person" not in answer.text
    assert body(site.http("GET", BUNDLE))["ratings"] == ratings


def test_what_people_said_is_in_no_bundle_before_the_seal_and_then_by_who_came_first(
    site: Site, tmp_path: Path
) -> None:
    """By who came first, not by name: zoe is reviewer 1."""
    site.create_adapter("order-bot")
    site.submit("order-bot", fill=9)
    while site.evaluate(tmp_path).ref != "order-bot/1":
        pass
    site.add_token("zoe", Role.REVIEWER, "zoe")
    site.add_token("abe", Role.REVIEWER, "abe")
    for who, clarity in (("zoe", 1), ("abe", 4)):
        client = site.client(who)
        while (item := client.next_assignment()) is not None:
            client.rate(item.id, Rating(clarity=clarity, relevance=5, safety=5, accuracy=5, hallucination=False))
    before = save_bundle(site.client("admin"), "order-bot/1", tmp_path / "before")
    assert before.ratings == [] and before.review is not None and before.review.barred == {}
    assert (before.review.finished, before.review.rated > 0) == (2, True)
    report, differences = recompute(*load_bundle(tmp_path / "before"))
    assert differences == [] and report == site.client("admin").gate("order-bot/1")
    site.client("release-manager").seal("order-bot/1", "the pilot starts")
    ratings = site.client("admin").bundle("order-bot/1").ratings
    assert {(row.person, row.clarity) for row in ratings} == {("reviewer 1", 1), ("reviewer 2", 4)}


def test_what_the_bundle_states_is_what_the_signed_approval_names(site: Site) -> None:
    bundle = site.client("admin").bundle(APPROVED)
    envelope = site.client("admin").resolve(APPROVED).attestation
    assert envelope is not None
    predicate = json.loads(base64.b64decode(envelope.payload))["predicate"]
    assert predicate["policy"]["digest"]["sha256"] == bundle.policy.removeprefix("sha256:")
    assert bundle.evidence_digest is not None
    (evidence,) = (one for one in predicate["inputAttestations"] if one["uri"] == "tunegate:evidence")
    assert evidence["digest"]["sha256"] == bundle.evidence_digest.removeprefix("sha256:")


# -- as a directory ----------------------------------------------------------------------------------------------------


def test_a_bundle_is_canonical_json_beside_the_very_rows_that_were_posted(site: Site, saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {BUNDLE_FILE, ROWS_FILE}
    text = (saved / BUNDLE_FILE).read_bytes()
    assert rfc8785.dumps(json.loads(text)) == text
    evidence = load_bundle(saved).bundle.evidence
    assert evidence is not None
    assert (saved / ROWS_FILE).read_bytes() == site.http("GET", f"/v1/blobs/sha256:{evidence.rows}").content


def test_every_changed_byte_of_the_rows_is_noticed(saved: Path) -> None:
    """A sample: both ends, and twenty places between."""
    path = saved / ROWS_FILE
    data = path.read_bytes()
    for position in sorted({*range(0, len(data), len(data) // 20), len(data) - 1}):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(EvidenceRefused, match="not the rows it is of"):
            load_bundle(saved)
    path.unlink()
    with pytest.raises(InvalidRequest, match=r"rows\.parquet cannot be read"):
        load_bundle(saved)


@pytest.mark.parametrize("kind", ["no parquet", "a wrong type", "a column missing"])
def test_rows_that_are_none_are_refused_even_where_their_digest_was_made_to_fit(saved: Path, kind: str) -> None:
    path = saved / ROWS_FILE
    columns = {"a wrong type": "* REPLACE ('x' AS correct)", "a column missing": "* EXCLUDE (item)"}
    if kind == "no parquet":
        path.write_bytes(b"PAR1")
    else:
        changed = f"SELECT {columns[kind]} FROM read_parquet('{path}')"
        with duckdb.connect() as db:
            db.execute(f"COPY ({changed}) TO '{saved / 'new'}' (FORMAT parquet)")
        (saved / "new").replace(path)
    document = json.loads((saved / BUNDLE_FILE).read_bytes())
    document["evidence"]["rows"] = describe_file(path).sha256
    (saved / BUNDLE_FILE).write_text(json.dumps(document))
    with pytest.raises(EvidenceRefused, match="holds no per-item rows"):
        load_bundle(saved)


def test_a_bundle_that_can_not_be_read_says_what_to_do(saved: Path) -> None:
    path = saved / BUNDLE_FILE
    document = json.loads(path.read_bytes())
    for text in ("", "{", "[]", json.dumps({**document, "policy": "x"}), json.dumps({**document, "sealed": "yes"})):
        path.write_text(text)
        with pytest.raises(InvalidRequest, match=r"is no bundle: .*tunegate bundle REF --to DIR"):
            load_bundle(saved)
    path.unlink()
    with pytest.raises(InvalidRequest, match=r"cannot be read: .*tunegate bundle REF --to DIR"):
        load_bundle(saved)


def test_a_bundle_comes_whole_or_not_at_all_and_never_over_something_else(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="role ci may not do this"):
        save_bundle(site.client("ci"), APPROVED, tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(InvalidRequest, match="is not empty"):
        save_bundle(site.client("admin"), APPROVED, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    assert save_bundle(site.client("admin"), APPROVED, tmp_path / "empty").report.verdict is Verdict.GO
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]
