"""Preference pairs travel with a submitted run: part of what it is, held for its workers, named by the journal."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from site_under_test import DATASET, LEDGER, Site, running

from registry.audit.references import blobs_named
from registry.client import Refused
from registry.events import AnyEvent
from registry.records import CreateTraining, TrainingInfo
from registry.settings import Home

PLAIN = 'name = "r"\nbase = "b"\ndata = "d.jsonl"\n'
RECIPE = PLAIN + '[dpo]\npairs = "p.jsonl"\n'
PAIRS = b'{"prompt": "q", "chosen": "a", "rejected": "b"}\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("preferences") / "home")) as found:
        found.create_adapter()
        yield found


def sent(site: Site, data: bytes) -> str:
    return "sha256:" + site.client("trainer").upload(data).sha256


def submit(site: Site, **changes: Any) -> TrainingInfo:
    given = {"adapter": "support-bot", "recipe": RECIPE, "dataset": sent(site, DATASET), **changes}
    return site.client("trainer").submit_training(CreateTraining(**given))


def test_other_pairs_are_another_run_and_a_worker_gets_them(site: Site) -> None:
    pairs = sent(site, PAIRS)
    run = submit(site, preferences=pairs)
    assert run.preferences == pairs and submit(site, preferences=pairs).id == run.id
    assert submit(site, preferences=sent(site, PAIRS + b"\n")).id != run.id
    assert site.client("trainer").training(run.id).preferences == pairs
    job = site.client("trainer").claim_training("w")
    assert job is not None and (job.id, job.preferences) == (run.id, pairs)


def test_pairs_are_readable_by_those_who_train_and_by_nobody_else(site: Site) -> None:
    pairs = sent(site, PAIRS + b"\n\n")
    submit(site, preferences=pairs)
    assert site.http("GET", f"/v1/blobs/{pairs}", "trainer").content == PAIRS + b"\n\n"
    assert site.http("GET", f"/v1/blobs/{pairs}", "consumer").status_code == 404


@pytest.mark.parametrize(
    ("recipe", "given", "said"),
    [
        (RECIPE, False, r"there is \[dpo\] without a preferences digest"),
        (PLAIN, True, r"there is a preferences digest without \[dpo\]"),
    ],
)
def test_a_recipe_and_its_pairs_belong_together(site: Site, recipe: str, given: bool, said: str) -> None:
    with pytest.raises(Refused, match=said):
        submit(site, recipe=recipe, preferences=sent(site, LEDGER) if given else None)


def test_pairs_that_are_not_stored_are_refused(site: Site) -> None:
    with pytest.raises(Refused, match="upload them first"):
        submit(site, preferences="sha256:" + "ab" * 32)


def test_the_journal_names_the_pairs_and_an_older_entry_has_none() -> None:
    """Named blobs are backed up, and kept from being swept."""
    said = {"type": "training.submitted", "id": "x", "adapter": "a", "recipe": RECIPE, "dataset": "sha256:" + "1" * 64}
    old = msgspec.convert(said, AnyEvent)
    new = msgspec.convert(said | {"preferences": "sha256:" + "2" * 64}, AnyEvent)
    assert [one.sha256 for one in blobs_named(old)] == ["1" * 64]
    assert [one.sha256 for one in blobs_named(new)] == ["1" * 64, "2" * 64]
