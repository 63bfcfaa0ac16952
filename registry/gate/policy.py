"""Policies: read from TOML, checked for sense, pinned to suite digests. Pure.

>>> read_policy("[accuracy]\\nmin = 0.9").accuracy.min
0.9
"""

import math
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from registry.errors import InvalidRequest
from registry.names import digest_of
from registry.records import Policy, ReviewRule, Suite, SuiteKind

# Which kind of suite each section measures on.
SUITE_KINDS = {
    "perplexity": SuiteKind.CONVERSATIONS,
    "accuracy": SuiteKind.QUESTIONS,
    "forgetting": SuiteKind.QUESTIONS,
    "review": SuiteKind.PROMPTS,
}
# What an extra suite may hold: whatever has right and wrong answers.
EXTRA_KINDS = (SuiteKind.QUESTIONS, SuiteKind.CHOICES, SuiteKind.REFUSALS, SuiteKind.LM_EVAL)
# What policies said of reviews from the first on. Later keys: defaults are no part of a digest, so they stay for ever.
_FIRST_OF_REVIEW = {"suite", "reviewers", "outputs", "min_mean", "safety_veto", "max_hallucination_rate"}


def read_policy(text: str) -> Policy:
    """Policy from TOML; raises InvalidRequest that names the line or the key."""
    try:
        policy = msgspec.convert(tomllib.loads(text), Policy)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the policy does not fit: {error}; see docs/policy.md for every key") from None
    except RecursionError:
        raise InvalidRequest("the policy is nested too deep; see docs/policy.md for its keys") from None
    except ValueError as error:  # not TOML, or a number of thousands of digits
        raise InvalidRequest(f"the policy is not valid TOML: {error}") from None
    return check_policy(policy)


def check_policy(policy: Policy) -> Policy:
    """The policy itself; raises InvalidRequest with every bound that makes no sense.

    Bounds must be finite: one `inf` or `nan` would silently switch a check off.
    """
    if problems := list(_problems(policy)):
        raise InvalidRequest("the policy cannot be applied: " + "; ".join(problems), problems)
    return policy


def _problems(policy: Policy) -> Iterator[str]:
    bounds = {
        "perplexity.max": (policy.perplexity.max, 1.0, 1e6),
        "perplexity.max_ratio_to_base": (policy.perplexity.max_ratio_to_base, 1e-3, 1e3),
        "perplexity.confidence": (policy.perplexity.confidence, 0.5, 0.9999),
        "accuracy.min": (policy.accuracy.min, 0.0, 1.0),
        "accuracy.confidence": (policy.accuracy.confidence, 0.5, 0.9999),
        "forgetting.margin": (policy.forgetting.margin, 0.0, 1.0),
        "forgetting.confidence": (policy.forgetting.confidence, 0.5, 0.9999),
        "review.reviewers": (policy.review.reviewers, 3, 5),
        "review.outputs": (policy.review.outputs, 1, 1000),
        "review.min_mean": (policy.review.min_mean, 1.0, 5.0),
        "review.safety_veto": (policy.review.safety_veto, 0, 4),
        "review.max_hallucination_rate": (policy.review.max_hallucination_rate, 0.0, 1.0),
        "review.confidence": (policy.review.confidence, 0.5, 0.9999),
        "review.min_agreement": (policy.review.min_agreement, 0.0, 1.0),
        "review.controls": (policy.review.controls, 0, 50),
        "review.gold": (policy.review.gold, 0, 50),
        "review.duplicates": (policy.review.duplicates, 0, 50),
        "review.from_accuracy": (policy.review.from_accuracy, 0.0, 1.0),
        "review.min_seconds": (policy.review.min_seconds, 0.0, 600.0),
        "review.min_gold": (policy.review.min_gold, 0.0, 1.0),
        "review.max_streak": (policy.review.max_streak, 2, 1000),
        "provenance.max_contaminated": (policy.provenance.max_contaminated, 0.0, 1.0),
    }
    if policy.review.ratings_per_output is not None:
        key, most = "review.ratings_per_output", policy.review.reviewers
        bounds[key] = (policy.review.ratings_per_output, 3, most)
    for position, rule in enumerate(policy.extra):
        if rule.min is None and rule.margin is None:
            yield f"extra[{position}] ({rule.suite}) asks for nothing; give it `min`, `margin` or both"
        bounds[f"extra[{position}].min"] = (rule.min if rule.min is not None else 0.0, 0.0, 1.0)
        bounds[f"extra[{position}].margin"] = (rule.margin if rule.margin is not None else 0.0, 0.0, 1.0)
        bounds[f"extra[{position}].confidence"] = (rule.confidence, 0.5, 0.9999)
    for key, (value, low, high) in bounds.items():
        if not (math.isfinite(value) and low <= value <= high):
            yield f"{key} = {value} is not between {low:g} and {high:g}"
    named = [getattr(policy, section).suite for section in SUITE_KINDS] + [rule.suite for rule in policy.extra]
    seen = Counter(suite.partition("@")[0] for suite in named)
    for name in dict.fromkeys(rule.suite.partition("@")[0] for rule in policy.extra):
        if seen[name] > 1:
            yield f"extra suite {name!r} is named {seen[name]} times in the policy; each extra suite has one rule"


def pin(policy: Policy, newest: Mapping[str, Suite]) -> Policy:
    """The policy with each suite named as `name@sha256:…`; `newest` maps names and pinned names to suites.

    Raises InvalidRequest for every suite that is not registered or of the wrong kind.
    """
    document = msgspec.to_builtins(policy)
    problems = []
    for section, kind in SUITE_KINDS.items():
        name = document[section]["suite"]
        suite = newest.get(name)
        if suite is None:
            problems.append(f"{section}.suite {name!r} is not registered; push it with `tunegate suite push DIR`")
        elif suite.kind != kind:
            problems.append(f"{section}.suite {name!r} holds {suite.kind}, but {kind} are needed")
        else:
            document[section]["suite"] = suite.ref
    for position, rule in enumerate(document["extra"]):
        suite = newest.get(rule["suite"])
        if suite is None:
            problems.append(f"extra[{position}].suite {rule['suite']!r} is not registered; push it first")
        elif suite.kind not in EXTRA_KINDS:
            kinds = ", ".join(EXTRA_KINDS)
            problems.append(
                f"extra[{position}].suite {rule['suite']!r} holds {suite.kind}, but one of {kinds} is needed"
            )
        else:
            rule["suite"] = suite.ref
    if problems:
        raise InvalidRequest("the policy names suites that cannot be used: " + "; ".join(problems), problems)
    return msgspec.convert(document, Policy)


def policy_digest(policy: Policy) -> str:
    """Identity of a policy. The defaults of later keys are no part of it, so that an old one keeps its digest."""
    document = msgspec.to_builtins(policy)
    if not policy.promotion.second_signature:
        del document["promotion"]["second_signature"]
    if not policy.provenance.licensed_review:
        del document["provenance"]["licensed_review"]
    unsaid = msgspec.to_builtins(ReviewRule())
    review = document["review"]
    document["review"] = {
        key: value for key, value in review.items() if key in _FIRST_OF_REVIEW or value != unsaid[key]
    }
    return digest_of({key: value for key, value in document.items() if key != "extra" or value})
