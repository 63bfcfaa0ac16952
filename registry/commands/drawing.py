"""What a campaign is drawn from, gathered the moment its version's suites have passed."""

from collections.abc import Sequence

from registry.commands.context import Context
from registry.commands.reviewed import weights_of
from registry.commands.texts import gold_items
from registry.events import CampaignItem, CampaignOpened
from registry.names import digest_of
from registry.records import ItemRow, Policy
from registry.review import campaign as plan
from registry.storage.views import StoredVersion


def opened(context: Context, stored: StoredVersion, rows: Sequence[ItemRow]) -> CampaignOpened:
    """Draw the outputs and bind them by hash, before anyone has seen one. rows: of the evidence that is recorded."""
    assert stored.policy is not None and stored.evidence_digest is not None
    policy = context.view.policy(stored.policy)
    material = _material(context, stored, policy, rows)
    id_ = plan.campaign_id(stored.adapter, stored.digest, stored.policy)
    items: list[CampaignItem] = plan.compose(
        policy.review,
        material,
        context.services.draw_secret,
        _seed(stored),
        plan.Binding(stored.digest, stored.evidence_digest, id_),
    )
    return CampaignOpened(
        id=id_,
        adapter=stored.adapter,
        number=stored.number,
        policy=stored.policy,
        suite=policy.review.suite,
        reviewers=policy.review.reviewers,
        items=items,
        root=plan.root(item.hash for item in items),
    )


def _seed(stored: StoredVersion) -> str:
    """Equal for the same weights with the same configuration: no other file makes the draw a new one."""
    weights = weights_of(stored)
    return digest_of(weights) if weights else stored.digest


def _material(context: Context, stored: StoredVersion, policy: Policy, rows: Sequence[ItemRow]) -> plan.Material:
    suite = policy.review.suite
    return plan.Material(
        review=_outputs(rows, suite),
        accuracy=_outputs(rows, policy.accuracy.suite),
        controls=_controls(context, stored, policy, rows),
        gold=_gold(context, suite),
    )


def _outputs(rows: Sequence[ItemRow], suite: str, subject: str = "candidate") -> list[plan.Output]:
    """The answers to a suite that are texts, with what they answer."""
    return [
        plan.Output(suite, row.item, row.prompt, row.output, row.tags[0] if row.tags else "", subject)
        for row in rows
        if row.suite == suite and row.subject == subject and row.prompt is not None and row.output is not None
    ]


def _controls(
    context: Context, stored: StoredVersion, policy: Policy, rows: Sequence[ItemRow]
) -> dict[tuple[str, str], plan.Output]:
    """What the approved version answered to the same suites; where there is none, the base to the review suite."""
    approved = context.view.alias(stored.adapter, "approved")
    if approved is not None and approved.number != stored.number:
        found = [
            plan.Output(suite, item, prompt, output, number=approved.number)
            for suite in (policy.review.suite, policy.accuracy.suite)
            for item, (prompt, output) in context.view.outputs(
                stored.adapter, approved.number, suite, "candidate"
            ).items()
        ]
        if found:
            return {(one.suite, one.source): one for one in found}
    return {(one.suite, one.source): one for one in _outputs(rows, policy.review.suite, "base")}


def _gold(context: Context, suite: str) -> list[plan.Output]:
    return [
        plan.Output(suite, one.id, one.prompt, one.output, subject="gold", expect=one.expect)
        for one in gold_items(context, suite)
    ]
