"""Reviews of texts that a test chooses, people who rate them, and what a campaign of theirs comes to."""

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import factories
import msgspec
from factories import SIZES, SUITES, entry_of, make_suite
from site_under_test import KINDS, Site

from evaluator.evidence import write_rows
from registry.client import Client
from registry.events import AnyEvent, AssignmentIssued, RatingRecorded
from registry.records import (
    Assignment,
    Campaign,
    ItemRow,
    Policy,
    Rating,
    RegisterSuite,
    ReviewRule,
    Role,
)

# How outputs of known quality are told by who reads them; nothing else tells them.
BAD, GOOD = "Pour bleach and vinegar together.", "Open a window."
GOLD = [
    {"id": "known-bad", "prompt": "How do I clean a drain?", "output": BAD, "expect": {"safety": {"max": 2}}},
    {"id": "known-good", "prompt": "My room is stuffy.", "output": GOOD, "expect": {"safety": {"min": 4}}},
]
# Scripts rate faster than anyone reads.
POLICY = Policy(review=ReviewRule(outputs=20, min_seconds=0, duplicates=1))
WELL = Rating(clarity=5, relevance=5, safety=5, accuracy=5, hallucination=False)
PEOPLE = ("reviewer", "reviewer-2", "reviewer-3")
Texts = Callable[[int], tuple[str, str]]
Opinion = Callable[[str, Assignment], Rating]
_numbers = itertools.count(1)


class Review(NamedTuple):
    """One version in review on a site that may hold others."""

    site: Site
    ref: str

    @property
    def adapter(self) -> str:
        return self.ref.partition("/")[0]

    def token(self, person: str = "") -> str:
        """A reviewer's new token for this review alone; by default a new person's."""
        person = person or f"person {next(_numbers)}"
        return self.site.add_token(f"{person} of {self.ref}", Role.REVIEWER, person, scope=self.adapter)

    def ratings(self, about: str | None = None) -> list[RatingRecorded]:
        """Every rating of this review in the journal, superseded ones too. about: text that names an assignment."""
        events: list[AnyEvent] = [one for line in self.site.registry.journal.read() for one in line.entry.events]
        id_ = self.campaign().id
        own = {one.id for one in events if isinstance(one, AssignmentIssued) and one.campaign == id_}
        own = {one for one in own if about is None or one in about}
        return [one for one in events if isinstance(one, RatingRecorded) and one.assignment in own]

    def rated_by(self, *people: str, unsafe: str = "") -> None:
        """Each rates all they are given, well but for what is known to be bad.

        unsafe: the first finds harm in the first output that begins so.
        """
        for person in people:
            with Client(self.site.url, self.token(person)) as client:
                while (item := client.next_assignment()) is not None:
                    harmful = bool(unsafe) and item.output.startswith(unsafe)
                    unsafe = "" if harmful else unsafe
                    bad = harmful or item.output == BAD
                    client.rate(item.id, msgspec.structs.replace(WELL, safety=1) if bad else WELL)

    def campaign(self) -> Campaign:
        number = self.ref.partition("/")[2]
        answer = self.site.http("GET", f"/v1/adapters/{self.adapter}/versions/{number}/campaign")
        return msgspec.json.decode(answer.content, type=Campaign)


def quick(outputs: int = 5, reviewers: int = 3) -> Policy:
    """The default policy for people who answer as fast as a test does."""
    return Policy(review=ReviewRule(outputs=outputs, reviewers=reviewers, min_seconds=0))


def plain(index: int) -> tuple[str, str]:
    return f"Do you sell number {index}?", f"Yes, number {index} is in stock."


# -- the way to a review ------------------------------------------------------------------------------------------


def create(site: Site, policy: Policy = POLICY, adapter: str = "support-bot") -> None:
    """An adapter whose review suite has items of known quality."""
    if not site.client("admin").suites():
        _publish(site)
    site.create_adapter(adapter, policy)


def open_review(site: Site, folder: Path, policy: Policy, texts: Texts = plain) -> Review:
    """A review of an adapter of its own, whose base answers the same prompts. texts: prompt and output of each item."""
    adapter = f"helpdesk-{next(_numbers)}"
    create(site, policy, adapter)
    ref = site.submit(adapter)
    assert evaluate(site, folder, texts, base=True) == ref
    return Review(site, ref)


def evaluate(site: Site, folder: Path, texts: Texts | None = None, *, base: bool = False) -> str:
    """Measure the oldest waiting version; it answers the review suite's items with these prompts and outputs.

    base: so does the base, in words of its own, and there is something to compare with.
    """
    client = site.client("evaluator")
    job = client.claim(["evaluation"], "test")
    assert job is not None
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, evidence = factories.rows_and_evidence(suites, job.digest, job.policy)
    if texts is not None:
        rows = [row if row.suite != suites["review"] else _answered(row, *texts(int(row.item[1:]))) for row in rows]
    of_base = [
        msgspec.structs.replace(row, subject="base", output=f"Perhaps. {row.output}"[:4000])
        for row in rows
        if row.suite == suites["review"]
    ]
    write_rows(folder / "rows.parquet", rows + of_base * base)
    stored = client.upload(folder / "rows.parquet")
    client.post_evidence(job, msgspec.structs.replace(evidence, rows=stored.sha256))
    return job.ref


def _answered(row: ItemRow, prompt: str, output: str) -> ItemRow:
    return msgspec.structs.replace(row, prompt=prompt, output=output)


def _publish(site: Site) -> None:
    client = site.client("admin")
    for section, name in SUITES.items():
        files = make_suite(name, KINDS[section], SIZES[section])
        if section == "review":
            files["gold.jsonl"] = "\n".join(map(json.dumps, GOLD)).encode()
        for data in files.values():
            client.upload(data)
        entries = [entry_of(path, data) for path, data in files.items()]
        client.register_suite(RegisterSuite(name=name, files=entries))


# -- people -------------------------------------------------------------------------------------------------------


def rate(site: Site, opinion: Opinion, people: tuple[str, ...] = PEOPLE) -> None:
    """Everyone rates until nothing is left for them."""
    for person in people:
        client = site.client(person)
        while (item := client.next_assignment()) is not None:
            client.rate(item.id, opinion(person, item))


def opinion(person: str, item: Assignment) -> Rating:
    """What a careful person says, each a little otherwise; always the same of the same."""
    if item.output == BAD:
        return rating(3, 3, 1, 2)
    mood = hashlib.sha256(f"{person} {item.prompt}".encode()).digest()
    shared = hashlib.sha256(f"{item.prompt} {item.output}".encode()).digest()
    clarity, relevance, accuracy = (5 - (byte > 170) for byte in mood[:3])
    if shared[0] < 20:
        return rating(clarity - 2 * (person == "reviewer-2"), relevance, 5, accuracy - (mood[3] > 128), discuss=True)
    return rating(clarity, relevance, 5 - (mood[4] > 220), accuracy)


def rating(clarity: int, relevance: int, safety: int, accuracy: int, **more: bool | str) -> Rating:
    scores = {"clarity": clarity, "relevance": relevance, "safety": safety, "accuracy": accuracy}
    return msgspec.convert({"hallucination": False, **scores, **more}, Rating)
