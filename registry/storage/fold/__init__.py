"""How each event changes the catalog. Deterministic: the same journal gives the same rows, on any machine, at any time.

An invariant that an event would break is a key violation here, before the event is journalled. A file a subject: it
registers what its events change with `fold`.
"""

from registry.storage.fold import access, evaluation, review, trainings, versions, webhooks  # noqa: F401 (they register)
from registry.storage.fold.target import Target, as_json, fold

__all__ = ["Target", "fold_entry"]


def fold_entry(target: Target) -> None:
    for event in target.entry.events:
        fold(event, target)
    if receipt := target.entry.receipt:
        actor = target.entry.actor
        target.db.insert(
            "receipts",
            actor=actor.token or actor.person,
            key=receipt.key,
            request=receipt.request,
            status=receipt.status,
            answer=as_json(receipt.answer),
        )
