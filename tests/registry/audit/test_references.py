"""No blob that the journal names can be forgotten by a backup, a scrub or a collection."""

from typing import Any, get_args

import msgspec
import pytest
from factories import make_evidence, make_training, sha

from registry.audit.references import References, blobs_named
from registry.events import (
    AnyEvent,
    AssignmentSkipped,
    BlobSent,
    DisputeAdjudicated,
    Event,
    EvidenceRecorded,
    RatingRecorded,
    SuiteRegistered,
    VersionCreated,
    VersionSubmitted,
    WordsErased,
)
from registry.records import FileEntry, SuiteKind

# Fields of events that hold a hash of something else than a blob. A new one belongs here or into `blobs_named`.
NO_BLOBS = {
    "AliasMoved.digest",  # a manifest
    "ApprovalProposed.digest",
    "AdapterCreated.base.digest",  # the base model's files, which the registry does not keep
    "BlobQuarantined.sha256",  # of a blob that something else names, or nothing
    "CampaignOpened.items[].hash",  # of a drawn output, whose text is in the rows
    "CampaignOpened.policy",
    "CampaignOpened.root",
    "CampaignSealed.result",  # of what follows from the ratings in the journal
    "CampaignSealed.root",
    "EvidenceRecorded.digest",
    "EvidenceRecorded.evidence.engine.fingerprint",
    "EvidenceRecorded.evidence.manifest",
    "EvidenceRecorded.evidence.perplexity.mask",
    "EvidenceRecorded.evidence.policy",
    "GateDecided.report.digest",
    "GateDecided.report.evaluated_with.fingerprint",
    "GateDecided.report.policy",
    "KeyAdded.id",  # a key's id is the hash of its bytes, which the event holds
    "KeyRevoked.id",
    "KeyRotated.key",
    "KeyRotated.previous",
    "PolicySet.digest",
    "RegistryCreated.draw_commitment",
    "SuiteRegistered.digest",
    "TokenCreated.secret_sha256",
    "TokenMinted.jti",
    "VersionCreated.digest",
    "VersionCreated.training.base",
    "VersionSubmitted.policy",
    "WebhookCreated.secret_sha256",
    "WordsErased.texts[]",  # of what is gone
}
EVENTS: tuple[type[Event], ...] = get_args(AnyEvent)
_HASH_PATTERNS = {r"^sha256:[0-9a-f]{64}\Z", r"^[0-9a-f]{64}\Z"}


class Example:
    """A value of a type in which every hash is another one; `hashes` tells where each stands."""

    def __init__(self) -> None:
        self.hashes: dict[str, str] = {}

    def of(self, kind: Any, path: str) -> Any:
        match kind:
            case msgspec.inspect.StructType(cls=cls, fields=fields):
                return cls(**{field.name: self.of(field.type, f"{path}.{field.name}") for field in fields})
            case msgspec.inspect.ListType(item_type=item):
                return [self.of(item, f"{path}[]")]
            case msgspec.inspect.VarTupleType(item_type=item):
                return (self.of(item, f"{path}[]"),)
            case msgspec.inspect.DictType(key_type=key, value_type=value):
                return {self.of(key, f"{path}{{key}}"): self.of(value, f"{path}{{}}")}
            case msgspec.inspect.UnionType(types=types):
                return self.of(next(one for one in types if not isinstance(one, msgspec.inspect.NoneType)), path)
            case msgspec.inspect.StrType(pattern=pattern) if pattern in _HASH_PATTERNS:
                hex_ = sha(path.encode())
                self.hashes[path] = hex_
                return hex_ if "sha256" not in str(pattern) else f"sha256:{hex_}"
            case msgspec.inspect.LiteralType(values=values):
                return values[0]
            case msgspec.inspect.EnumType(cls=cls):
                return next(iter(cls))
            case msgspec.inspect.StrType():
                return "x"
            case msgspec.inspect.BoolType():
                return True
            case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
                return 1
        raise AssertionError(f"{path}: say here how an example of {kind} is made")


@pytest.mark.parametrize("event_type", EVENTS, ids=[one.__name__ for one in EVENTS])
def test_every_hash_in_an_event_is_a_blob_or_known_to_be_none(event_type: type[Event]) -> None:
    example = Example()
    event = example.of(msgspec.inspect.type_info(event_type), event_type.__name__)
    named = {one.sha256 for one in blobs_named(event)}
    unnamed = {path for path, hex_ in example.hashes.items() if hex_ not in named}
    forgotten, wrong = unnamed - NO_BLOBS, NO_BLOBS & (example.hashes.keys() - unnamed)
    assert not forgotten, f"if {forgotten} are blobs, name them in registry.audit.references; if not, list them here"
    assert not wrong and named <= set(example.hashes.values())


def test_the_list_of_hashes_that_are_no_blobs_holds_nothing_that_is_gone() -> None:
    example = Example()
    for event_type in EVENTS:
        example.of(msgspec.inspect.type_info(event_type), event_type.__name__)
    assert example.hashes.keys() >= NO_BLOBS


def version(number: int, *contents: bytes) -> VersionCreated:
    files = [FileEntry(path=str(index), size=len(data), sha256=sha(data)) for index, data in enumerate(contents)]
    return VersionCreated(adapter="bot", number=number, digest="sha256:" + "0" * 64, files=files)


def submitted(number: int) -> VersionSubmitted:
    return VersionSubmitted(adapter="bot", number=number, policy="sha256:" + "0" * 64, findings=[], job="j")


def gathered(*events: AnyEvent) -> References:
    found = References()
    for event in events:
        found.add(event)
    return found


def test_files_of_a_version_are_needed_once_it_is_sealed() -> None:
    before = gathered(version(1, b"a", b"b"))
    assert before.named == {sha(b"a"), sha(b"b")} and not before.needed
    after = gathered(version(1, b"a", b"b"), version(2, b"c"), submitted(1))
    assert after.needed == {sha(b"a"), sha(b"b")} and after.named == after.needed | {sha(b"c")}


def test_training_data_of_a_sealed_version_is_needed() -> None:
    created = msgspec.structs.replace(version(1, b"a"), training=make_training(dataset=b"data", ledger=b"ledger"))
    assert gathered(created, submitted(1)).needed == {sha(b"a"), sha(b"data"), sha(b"ledger")}


def test_rows_and_suites_are_needed_at_once() -> None:
    evidence = make_evidence()
    recorded = EvidenceRecorded(job="j", adapter="bot", number=1, digest="sha256:" + "0" * 64, evidence=evidence)
    files = [FileEntry(path="suite.toml", size=1, sha256=sha(b"s"))]
    suite = SuiteRegistered(
        name="s", kind=SuiteKind.PROMPTS, digest="sha256:" + "0" * 64, n_items=1, files=files, chance=0.0
    )
    assert gathered(recorded, suite).needed == {evidence.rows, sha(b"s")}


def test_comments_and_bytes_of_no_version_may_be_missing_but_not_if_something_else_needs_them() -> None:
    rating = RatingRecorded(
        assignment="a", clarity=5, relevance=5, safety=5, accuracy=5, hallucination=False, comment=sha(b"words")
    )
    sent = BlobSent(sha256=sha(b"a"), scope="team")
    found = gathered(rating, sent)
    assert found.named == {sha(b"words"), sha(b"a")} and not found.needed
    assert gathered(sent, version(1, b"a"), submitted(1), rating).needed == {sha(b"a")}


def test_rating_without_comment_names_nothing() -> None:
    rating = RatingRecorded(assignment="a", clarity=5, relevance=5, safety=5, accuracy=5, hallucination=False)
    assert blobs_named(rating) == []


def rated(assignment: str, words: bytes) -> RatingRecorded:
    return RatingRecorded(
        assignment=assignment, clarity=5, relevance=5, safety=5, accuracy=5, hallucination=False, comment=sha(words)
    )


def test_what_was_erased_is_named_no_more_unless_others_wrote_the_same_or_write_it_again() -> None:
    skipped = AssignmentSkipped(id="b", words=sha(b"words"))
    ruled = DisputeAdjudicated(campaign="c", item="i", upheld=True, words=sha(b"ruling"))
    gone = WordsErased(about=["a", "c/i"], texts=[sha(b"words"), sha(b"ruling")], reason="asked to")
    rest = msgspec.structs.replace(gone, about=["b"])
    assert gathered(rated("a", b"words"), ruled, gone).named == set() == gathered(rated("a", b"words"), gone).comments
    assert gathered(rated("a", b"words"), skipped, gone).named == {sha(b"words")}
    assert gathered(rated("a", b"words"), skipped, gone, rest).named == set()
    assert gathered(rated("a", b"words"), gone, rated("d", b"words")).named == {sha(b"words")}


def test_bytes_that_a_version_holds_are_not_erased_with_words_that_are_the_same() -> None:
    gone = WordsErased(about=["a"], texts=[sha(b"f")], reason="asked to")
    for made in ([version(1, b"f"), submitted(1)], [version(1, b"f")]):
        assert gathered(*made, rated("a", b"f"), gone).named == {sha(b"f")}
