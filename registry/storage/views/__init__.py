"""Questions the catalog answers, as plain values. Each method is one question; every result is fetched whole.

A file a subject: the values that are stored of it, and the questions about it. `View` asks them all of one cursor.
"""

from registry.storage.views.access import Access, StoredKey, StoredPublisher, StoredToken
from registry.storage.views.adapters import StoredAdapter, StoredAlias, StoredProposal, read_tensors, stored_adapter
from registry.storage.views.bookkeeping import Applied, Bookkeeping, Receipt, StoredWebhook
from registry.storage.views.jobs import ITEM_COLUMNS, Jobs, StoredJob, item_row
from registry.storage.views.reader import Database, Result
from registry.storage.views.review import (
    Reviews,
    StoredAssignment,
    StoredCampaign,
    StoredItem,
    StoredRating,
    StoredWords,
    stored_item,
    stored_rating,
)
from registry.storage.views.trainings import StoredTraining, TrainingFact, Trainings, WaitingTraining
from registry.storage.views.versions import Holder, StoredVersion, Versions, stored_version

__all__ = [
    "ITEM_COLUMNS",
    "Applied",
    "Database",
    "Holder",
    "Receipt",
    "Result",
    "StoredAdapter",
    "StoredAlias",
    "StoredAssignment",
    "StoredCampaign",
    "StoredItem",
    "StoredJob",
    "StoredKey",
    "StoredProposal",
    "StoredPublisher",
    "StoredRating",
    "StoredToken",
    "StoredTraining",
    "StoredVersion",
    "StoredWebhook",
    "StoredWords",
    "TrainingFact",
    "View",
    "WaitingTraining",
    "item_row",
    "read_tensors",
    "stored_adapter",
    "stored_item",
    "stored_rating",
    "stored_version",
]


class View(Bookkeeping, Access, Versions, Jobs, Trainings, Reviews):
    """The catalog as one cursor sees it."""
