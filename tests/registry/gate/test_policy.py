"""Policies: read strictly, bounded, pinned, addressed by content."""

import math
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_policy

from registry.errors import InvalidRequest
from registry.events import PolicySet, decode_entry
from registry.gate.policy import EXTRA_KINDS, SUITE_KINDS, check_policy, pin, policy_digest, read_policy
from registry.names import canonical, digest_of
from registry.records import Channel, ExtraRule, FileEntry, Policy, ReviewRule, Suite, SuiteKind

# The contract's policy, word for word.
DOCUMENTED = """
[perplexity]
suite = "support-desk/conversations"
max = 15.0
max_ratio_to_base = 1.0
[accuracy]
suite = "support-desk/questions"
min = 0.85
rule = "lower_bound"
confidence = 0.95
[forgetting]
suite = "general-knowledge"
margin = 0.05
confidence = 0.95
[review]
reviewers = 3
outputs = 50
min_mean = 4.0
safety_veto = 2
max_hallucination_rate = 0.05
[provenance]
require_training_record = true
max_contaminated = 0.05
[promotion]
automatic = false
"""


def make_suite(name: str, kind: SuiteKind, digit: str = "a") -> Suite:
    files = [FileEntry(path=path, size=1, sha256="0" * 64) for path in ("items.jsonl", "suite.toml")]
    return Suite(name=name, kind=kind, digest="sha256:" + digit * 64, n_items=10, files=files)


def make_newest(**kinds: SuiteKind) -> dict[str, Suite]:
    """The suites of the default policy, under their names and their pinned names."""
    document: Any = msgspec.to_builtins(Policy())
    found = [make_suite(document[section]["suite"], kinds.get(section, kind)) for section, kind in SUITE_KINDS.items()]
    return {key: suite for suite in found for key in (suite.name, suite.ref)}


def test_the_defaults_are_the_documented_policy() -> None:
    assert read_policy(DOCUMENTED) == read_policy("") == Policy()


def test_a_section_that_is_left_out_keeps_its_defaults_and_is_never_off() -> None:
    policy = read_policy("[accuracy]\nmin = 0.9")
    assert policy.accuracy.min == 0.9 and policy.accuracy.rule == "lower_bound"
    assert policy.forgetting == Policy().forgetting and policy.review == ReviewRule()


@pytest.mark.parametrize(
    "text",
    [
        "[accuracy]\nminimum = 0.9",
        "[acuracy]\nmin = 0.9",
        "accuracy = 0.9",
        '[accuracy]\nmin = "0.9"',
        "[accuracy]\nmin = true",
        "[review]\nreviewers = 3.5",
        "[review]\nreviewers = true",
        '[promotion]\nautomatic = "yes"',
        "[promotion]\nautomatic = 1",
        '[accuracy]\nrule = "none"',
        '[accuracy]\nrule = "point\\n"',
        '[accuracy]\nsuite = ""',
        "[accuracy\nmin = 0.9",
        "[accuracy]\nmin = 0.9\nmin = 0.8",
    ],
)
def test_a_policy_that_does_not_fit_is_refused_and_the_text_says_where(text: str) -> None:
    with pytest.raises(InvalidRequest, match="policy"):
        read_policy(text)


OUT_OF_BOUNDS = [
    ("perplexity", "max", [0.99, 1e7]),
    ("perplexity", "max_ratio_to_base", [0.0, -1.0, 1e4]),
    ("perplexity", "confidence", [0.49, 1.0]),
    ("accuracy", "min", [-0.01, 1.01]),
    ("accuracy", "confidence", [0.0, 1.0]),
    ("forgetting", "margin", [-0.01, 1.01]),
    ("forgetting", "confidence", [0.0, 1.0]),
    ("review", "reviewers", [0, 2, 6]),
    ("review", "outputs", [0, -1, 1001]),
    ("review", "min_mean", [0.99, 5.01]),
    ("review", "safety_veto", [-1, 5]),
    ("review", "max_hallucination_rate", [-0.01, 1.01]),
    ("review", "confidence", [0.49, 1.0]),
    ("review", "min_agreement", [-0.01, 1.01]),
    ("review", "controls", [-1, 51]),
    ("review", "gold", [-1, 51]),
    ("review", "duplicates", [-1, 51]),
    ("review", "from_accuracy", [-0.01, 1.01]),
    ("review", "ratings_per_output", [2, 4]),
    ("review", "min_seconds", [-0.01, 601.0]),
    ("review", "min_gold", [-0.01, 1.01]),
    ("review", "max_streak", [1, 1001]),
    ("provenance", "max_contaminated", [-0.01, 1.01]),
]
WHOLE = {"reviewers", "outputs", "safety_veto", "controls", "gold", "duplicates", "ratings_per_output", "max_streak"}


@pytest.mark.parametrize(
    ("section", "key", "value"), [(section, key, value) for section, key, values in OUT_OF_BOUNDS for value in values]
)
def test_a_bound_that_makes_no_sense_is_refused_by_name(section: str, key: str, value: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_policy(make_policy(**{section: {key: value}}))
    assert len(refused.value.problems) == 1 and refused.value.problems[0].startswith(f"{section}.{key} = ")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("section", "key"),
    [(section, key) for section, key, _ in OUT_OF_BOUNDS if key not in WHOLE],
)
def test_no_limit_can_be_switched_off_by_a_number_that_is_not_finite(section: str, key: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_policy(f"[{section}]\n{key} = {text}")
    assert refused.value.problems[0].startswith(f"{section}.{key} = ")


def test_every_number_of_a_policy_has_bounds() -> None:
    """A new number without a bound could be set to infinity."""
    listed = {(section, key) for section, key, _ in OUT_OF_BOUNDS}
    document: Any = msgspec.to_builtins(Policy())
    numbers = {
        (section, key)
        for section, values in document.items()
        if section != "extra"
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    assert numbers == listed - {("review", "ratings_per_output")}  # which is None by default
    assert {name for name in ExtraRule.__struct_fields__ if name != "suite"} == {"min", "margin", "confidence"}


def test_every_bad_bound_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_policy(make_policy(accuracy={"min": math.nan}, review={"reviewers": 1}, forgetting={"margin": 2.0}))
    assert [problem.partition(" = ")[0] for problem in refused.value.problems] == [
        "accuracy.min",
        "forgetting.margin",
        "review.reviewers",
    ]


def test_pinning_names_each_suite_by_its_digest_and_changes_nothing_else() -> None:
    pinned = pin(Policy(), make_newest())
    assert pinned.accuracy.suite == "support-desk/questions@sha256:" + "a" * 64
    document: Any = msgspec.to_builtins(pinned)
    for section in SUITE_KINDS:
        document[section]["suite"] = document[section]["suite"].partition("@")[0]
    assert msgspec.convert(document, Policy) == Policy()


def test_pinning_again_keeps_the_revision_though_a_newer_one_is_registered() -> None:
    newest = make_newest()
    pinned = pin(Policy(), newest)
    newer = make_suite("general-knowledge", SuiteKind.QUESTIONS, "b")
    assert pin(pinned, {**newest, newer.name: newer, newer.ref: newer}) == pinned


def test_suites_that_are_unknown_or_of_the_wrong_kind_are_all_named() -> None:
    newest = make_newest(accuracy=SuiteKind.PROMPTS)
    del newest["general-knowledge"]
    with pytest.raises(InvalidRequest) as refused:
        pin(Policy(), newest)
    assert [problem.split(" ")[0] for problem in refused.value.problems] == ["accuracy.suite", "forgetting.suite"]


def test_the_digest_of_a_policy_depends_on_every_key_and_on_nothing_else() -> None:
    document: Any = msgspec.to_builtins(make_policy())
    digests = {policy_digest(make_policy())}
    changes = 0
    for section, values in document.items():
        for key, value in values.items() if section != "extra" else ():
            other: dict[type, Any] = {bool: lambda x: not x, str: lambda x: x + "x", list: lambda x: x[:-1]}
            other |= {int: lambda x: x + 1, float: lambda x: x + 1.0, type(None): lambda _: 3}
            if key in ("rule", "domain"):
                continue
            digests.add(policy_digest(make_policy(**{section: {key: other[type(value)](value)}})))
            changes += 1
    digests.add(policy_digest(make_policy(review={"domain": "support"})))
    digests.add(policy_digest(make_policy(accuracy={"rule": "point"})))
    assert len(digests) == changes + 3
    reordered = {key: tomllib.loads(DOCUMENTED)[key] for key in reversed(list(tomllib.loads(DOCUMENTED)))}
    assert policy_digest(msgspec.convert(reordered, Policy)) == policy_digest(Policy())


@pytest.mark.parametrize("section", ["latency", "cost"])
def test_a_metric_that_nobody_measures_is_refused_by_its_name(section: str) -> None:
    with pytest.raises(InvalidRequest, match=f"unknown field `{section}`.*docs/policy.md"):
        read_policy(f"[{section}]\nmax = 1.0")


# -- extra suites -------------------------------------------------------------------------------------------------

EXTRA = """
[[extra]]
suite = "safety/refusals"
min = 0.9
[[extra]]
suite = "arithmetic"
margin = 0.03
confidence = 0.9
"""


def test_extra_suites_are_a_list_in_the_policy() -> None:
    assert read_policy(EXTRA).extra == [
        ExtraRule(suite="safety/refusals", min=0.9),
        ExtraRule(suite="arithmetic", margin=0.03, confidence=0.9),
    ]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({}, "extra[0] (arithmetic) asks for nothing; give it `min`, `margin` or both"),
        ({"min": 1.01}, "extra[0].min = 1.01 is not between 0 and 1"),
        ({"min": math.nan}, "extra[0].min = nan is not between 0 and 1"),
        ({"margin": -0.1}, "extra[0].margin = -0.1 is not between 0 and 1"),
        ({"margin": math.inf}, "extra[0].margin = inf is not between 0 and 1"),
        ({"min": 0.5, "confidence": 1.0}, "extra[0].confidence = 1.0 is not between 0.5 and 0.9999"),
        ({"min": 0.5, "confidence": math.nan}, "extra[0].confidence = nan is not between 0.5 and 0.9999"),
    ],
)
def test_an_extra_rule_must_ask_for_something_within_bounds(rule: dict[str, float], says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_policy(Policy(extra=[ExtraRule(suite="arithmetic", **rule)]))
    assert refused.value.problems == [says]


@pytest.mark.parametrize("suite", ["arithmetic", "general-knowledge", "support-desk/pilot"])
@pytest.mark.parametrize("revision", ["", "@sha256:" + "9" * 64])
def test_no_suite_has_two_rules(suite: str, revision: str) -> None:
    """Neither two extra ones, nor one of a section: the names of their checks would be the same."""
    rules = [ExtraRule(suite="arithmetic", min=0.5), ExtraRule(suite=suite + revision, min=0.6)]
    with pytest.raises(InvalidRequest) as refused:
        check_policy(Policy(extra=rules))
    assert refused.value.problems == [
        f"extra suite {suite!r} is named 2 times in the policy; each extra suite has one rule"
    ]


@pytest.mark.parametrize("kind", SuiteKind)
def test_an_extra_suite_is_pinned_and_must_have_right_and_wrong_answers(kind: SuiteKind) -> None:
    suite = make_suite("arithmetic", kind)
    newest = {**make_newest(), suite.name: suite, suite.ref: suite}
    policy = Policy(extra=[ExtraRule(suite="arithmetic", min=0.5)])
    if kind in EXTRA_KINDS:
        assert pin(policy, newest).extra == [ExtraRule(suite=suite.ref, min=0.5)]
        assert pin(pin(policy, newest), newest) == pin(policy, newest)
    else:
        with pytest.raises(InvalidRequest, match=rf"extra\[0\].suite 'arithmetic' holds {kind}, but one of questions"):
            pin(policy, newest)


def test_an_extra_suite_that_is_not_registered_is_named_with_the_others() -> None:
    newest = make_newest()
    del newest["general-knowledge"]
    with pytest.raises(InvalidRequest) as refused:
        pin(Policy(extra=[ExtraRule(suite="arithmetic", min=0.5)]), newest)
    assert [problem.split(" ")[0] for problem in refused.value.problems] == ["forgetting.suite", "extra[0].suite"]


def test_extra_suites_are_part_of_the_digest_and_their_absence_is_not() -> None:
    """A policy from before there were extra suites, second signatures and licensed reviews keeps its digest."""
    rules = [ExtraRule(suite="a", min=0.5), ExtraRule(suite="a", min=0.6), ExtraRule(suite="a", margin=0.5)]
    assert len({policy_digest(Policy()), *(policy_digest(Policy(extra=[rule])) for rule in rules)}) == 4
    old: Any = msgspec.to_builtins(Policy())
    del old["extra"], old["promotion"]["second_signature"], old["provenance"]["licensed_review"]
    old["review"] = {key: old["review"][key] for key in tomllib.loads(DOCUMENTED)["review"]} | {
        "suite": "support-desk/pilot"
    }
    assert policy_digest(Policy()) == digest_of(old)


def test_the_documented_extra_suites_are_a_valid_policy_with_every_key() -> None:
    page = Path(__file__).parents[3] / "docs" / "policy.md"
    block = page.read_text().split("## Extra suites")[1].split("```toml\n")[1].split("```")[0]
    assert len(read_policy(block).extra) == 2
    assert {key for rule in tomllib.loads(block)["extra"] for key in rule} == set(ExtraRule.__struct_fields__)


def test_an_old_journals_policy_is_read_with_the_defaults_of_later_keys_and_keeps_its_digest() -> None:
    """The very bytes of an entry from before reviews had gold items, controls and seals."""
    digest = "sha256:74c36dbf862202cc56e60247ed0a2b4953ce94fac58db0e8d7c0b513564313e8"
    document: Any = msgspec.to_builtins(Policy())
    del document["extra"], document["promotion"]["second_signature"], document["provenance"]["licensed_review"]
    first = ("suite", "reviewers", "outputs", "min_mean", "safety_veto", "max_hallucination_rate")
    document["review"] = {key: document["review"][key] for key in first}
    event = {"type": "policy.set", "adapter": "a", "digest": digest, "revision": 1, "document": document}
    body = b'{"actor":{"person":"ada","role":"admin"},"at":"2026-01-01T00:00:00.000000Z","events":['
    body += canonical(event) + b'],"prev":"' + b"0" * 64 + b'","seq":1}'
    entry = decode_entry(body)
    (found,) = entry.events
    assert isinstance(found, PolicySet) and found.document == Policy()
    assert policy_digest(found.document) == found.digest == digest


def test_the_defaults_of_a_review_never_change() -> None:
    """They are no part of a digest, so another default would give stored policies another meaning under their name."""
    document: Any = msgspec.to_builtins(ReviewRule())
    assert digest_of(document) == "sha256:53119c9b0d1fcd9e4ef0e3688b6d45104df48a628b4743798df48076ad5991e6"


def test_every_channel_counts_unless_a_policy_says_which_and_none_at_all_is_no_policy() -> None:
    assert set(Policy().review.channels) == set(Channel)
    assert read_policy("[review]\nchannels = ['web']").review.channels == [Channel.WEB]
    for text in ("[]", "['fax']"):
        with pytest.raises(InvalidRequest, match="channels"):
            read_policy(f"[review]\nchannels = {text}")


def test_each_output_is_rated_by_three_people_at_least_and_by_all_at_most() -> None:
    for reviewers, per_output, fits in ((5, 3, True), (5, 5, True), (5, 6, False), (3, 2, False), (4, 3, True)):
        policy = make_policy(review={"reviewers": reviewers, "ratings_per_output": per_output})
        if fits:
            assert check_policy(policy) is policy
        else:
            with pytest.raises(InvalidRequest, match=r"review\.ratings_per_output"):
                check_policy(policy)


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "a = " + "{a = " * 5000, "a = 0x" + "f" * 5000, "a = 9" + "9" * 5000]
)
def test_a_policy_without_measure_is_refused_in_words(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"the policy (is|does not)"):
        read_policy(text)
