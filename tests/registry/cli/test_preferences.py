"""`tunegate data preferences`: from a sealed review of a served registry to a file that a recipe's [dpo] reads."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from reviewing_under_test import WELL, Review, open_review
from site_under_test import Site, running

from registry.cli import main
from registry.client import Client
from registry.records import Policy, ReviewRule
from registry.settings import Home
from trainer.pairs import read_pairs

# Of three prompts the base's answers are shown as well; scripts rate faster than anyone reads.
POLICY = Policy(review=ReviewRule(outputs=6, reviewers=3, min_seconds=0, controls=3, duplicates=0, gold=0))


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("preferences") / "home")) as found:
        yield found


@pytest.fixture(scope="module")
def review(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Review:
    """Three people find the base's answers, which begin with "Perhaps.", unclear and of little help."""
    found = open_review(site, tmp_path_factory.mktemp("review"), POLICY)
    for _ in range(3):
        with Client(site.url, found.token()) as client:
            while (item := client.next_assignment()) is not None:
                weak = msgspec.structs.replace(WELL, clarity=2, relevance=2)
                client.rate(item.id, weak if item.output.startswith("Perhaps.") else WELL)
    assert found.campaign().sealed_at is not None
    return found


@pytest.fixture
def tunegate(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object, who: str = "release-manager") -> Ran:
        monkeypatch.setenv("TUNEGATE_URL", site.url)
        monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens[who])
        capsys.readouterr()
        code = 0
        try:
            main([str(one) for one in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Ran(code, *capsys.readouterr())

    return run


def test_the_pairs_of_a_review_are_what_a_recipe_reads(review: Review, tunegate: Run, tmp_path: Path) -> None:
    ran = tunegate("data", "preferences", review.ref, "--out", tmp_path / "pairs.jsonl")
    assert ran.code == 0 and f"3 pairs of {review.ref} written" in " ".join(ran.out.split()), ran
    pairs = read_pairs(tmp_path / "pairs.jsonl").pairs
    assert len(pairs) == 3
    for one in pairs:
        assert one.row.completion.startswith("Yes, number") and one.rejected == f"Perhaps. {one.row.completion}"
        assert one.row.provenance == {"source": f"review of {review.ref}"}
    lines: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert {(one["meta"]["margin"], one["meta"]["raters"]) for one in lines} == {(1.5, 3)}
    assert {(one["meta"]["preferred"], one["meta"]["other"]) for one in lines} == {("candidate", "base")}


def test_a_wider_margin_leaves_no_pair_and_says_why(review: Review, tunegate: Run, tmp_path: Path) -> None:
    ran = tunegate("data", "preferences", review.ref, "--out", tmp_path / "pairs.jsonl", "--margin", "2")
    assert ran.code == 1 and "3 left out: the ratings differ by less than 2" in ran.out
    assert (tmp_path / "pairs.jsonl").read_text() == ""


def test_who_may_not_read_reviewed_items_gets_no_pairs(review: Review, tunegate: Run, tmp_path: Path) -> None:
    for who in ("reviewer", "trainer", "ci", "consumer"):
        ran = tunegate("data", "preferences", review.ref, "--out", tmp_path / "pairs.jsonl", who=who)
        assert ran.code == 3 and not (tmp_path / "pairs.jsonl").exists(), who


def test_a_review_that_goes_on_gives_no_pairs(site: Site, tunegate: Run, tmp_path: Path) -> None:
    going_on = open_review(site, tmp_path, POLICY)
    ran = tunegate("data", "preferences", going_on.ref, "--out", tmp_path / "pairs.jsonl")
    assert ran.code == 3 and "not sealed" in ran.err and not (tmp_path / "pairs.jsonl").exists()
