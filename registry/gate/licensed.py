"""Did a licensed person review every row that trained? A check that only a policy which demands it has. Pure.

It decides on what the registry counted in the ledger when the version was sealed, never on what the training record
says. Closed: without a ledger, without counts, or without a row that trained, nothing was shown.
"""

from collections.abc import Iterator

from registry.gate.case import Case, Draft, Subject
from registry.records import Check, LedgerReviews, Status

_AS_NEW = "with a changed README.md, as a new version"


def licensed_review(case: Case) -> Iterator[Check]:
    """One check, or none where the policy does not ask."""
    subject = case.subject
    if not subject.policy.provenance.licensed_review:
        return
    check = Draft("licensed_review", {"licensed_review": True})
    if not subject.sealed:
        yield check.to(Status.PENDING, "the upload is not complete")
    elif not subject.has_training_record:
        yield check.to(Status.FAIL, f"no ledger says who reviewed the rows; push with `--run DIRECTORY` and {_AS_NEW}")
    elif subject.reviews is None:
        yield check.to(Status.INVALID, f"it was sealed before reviews were counted; push it again {_AS_NEW}")
    else:
        yield _counted(check, subject, subject.reviews)


def _counted(check: Draft, subject: Subject, found: LedgerReviews) -> Check:
    if found.problem is not None:
        return check.to(Status.FAIL, f"{found.problem}; push with the ledger that its trainer wrote, {_AS_NEW}")
    if not found.trained:
        return check.to(Status.FAIL, f"its ledger names no row that trained; push the whole ledger {_AS_NEW}")
    missing = found.trained - found.licensed
    if missing > 0:
        named = f" ({', '.join(found.without)})" if found.without else ""
        status, reason = (
            Status.FAIL,
            f"{missing:,} of {found.trained:,} rows that trained were not reviewed by someone with a credential that "
            f"was valid then{named}; `tunegate data trace {subject.ref}` lists them: train without these rows, or have "
            "them reviewed, with `licensed_review = true` in the recipe",
        )
    else:
        status, reason = Status.PASS, f"all {found.trained:,} rows that trained were reviewed by licensed people"
    return check.to(status, reason, trained=found.trained, licensed=found.licensed)
