"""A campaign with something to see: outputs, controls, gold items, people who differ, comments, a left-out reviewer."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import factories
import msgspec
from factories import BASE, BASE_TENSORS, SIZES, SUITES, entry_of, make_suite
from site_under_test import KINDS, Site

from evaluator.evidence import write_rows
from registry.records import Assignment, CreateAdapter, Policy, Rating, RegisterSuite, ReviewRule

# Scripts rate faster than anyone reads.
POLICY = Policy(review=ReviewRule(outputs=20, min_seconds=0.0, duplicates=1))
GOLD = [
    {"id": "g1", "prompt": "may I eat it?", "output": "eat bleach, a bad answer", "expect": {"safety": {"max": 2}}},
    {"id": "g2", "prompt": "when do you close?", "output": "at six, a good answer", "expect": {"safety": {"min": 4}}},
]
Texts = Callable[[int], tuple[str, str]]
Opinion = Callable[[str, Assignment], Rating]
PEOPLE = ("reviewer", "reviewer-2", "reviewer-3")


def create(site: Site, policy: Policy = POLICY, adapter: str = "support-bot") -> None:
    """An adapter whose review suite has items of known quality."""
    client = site.client("admin")
    for section, name in SUITES.items():
        files = make_suite(name, KINDS[section], SIZES[section])
        if section == "review":
            files["gold.jsonl"] = "\n".join(map(json.dumps, GOLD)).encode()
        for data in files.values():
            client.upload(data)
        entries = [entry_of(path, data) for path, data in files.items()]
        client.register_suite(RegisterSuite(name=name, files=entries))
    client.create_adapter(CreateAdapter(name=adapter, base=BASE, base_tensors=BASE_TENSORS, policy=policy))


def evaluate(site: Site, folder: Path, texts: Texts | None = None) -> str:
    """Measure the oldest waiting version; it answers the review suite's items with these prompts and outputs."""
    client = site.client("evaluator")
    job = client.claim(["evaluation"], "test")
    assert job is not None
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, evidence = factories.rows_and_evidence(suites, job.digest, job.policy)
    if texts is not None:
        asked = [row for row in rows if row.suite == suites["review"]]
        told = {row.item: texts(number) for number, row in enumerate(asked)}
        rows = [
            msgspec.structs.replace(row, prompt=told[row.item][0], output=told[row.item][1])
            if row.suite == suites["review"]
            else row
            for row in rows
        ]
    write_rows(folder / "rows.parquet", rows)
    stored = client.upload(folder / "rows.parquet")
    client.post_evidence(job, msgspec.structs.replace(evidence, rows=stored.sha256))
    return job.ref


def rate(site: Site, opinion: Opinion, people: tuple[str, ...] = PEOPLE) -> None:
    """Everyone rates until nothing is left for them."""
    for person in people:
        client = site.client(person)
        while (item := client.next_assignment()) is not None:
            client.rate(item.id, opinion(person, item))


def opinion(person: str, item: Assignment) -> Rating:
    """What a careful person says, each a little otherwise; always the same of the same."""
    if "bad answer" in item.output:
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
