"""The Python SDK: everything the HTTP API offers, as typed calls.

    from registry.client import Client

    with Client("http://127.0.0.1:8420", token="tg_…") as client:
        print(client.resolve("support-bot@approved").digest)

A call that changes something carries an Idempotency-Key, so it is sent again after a lost connection without harm.
`AsyncClient` offers the calls that services make while serving: resolve, alias, gate, download.
"""

from registry.bases import describe_base
from registry.client.adapters import Adapters
from registry.client.administration import Administration
from registry.client.blobs import Blobs, describe_file
from registry.client.calls import Refused, Unreachable
from registry.client.jobs import Jobs
from registry.client.review import Reviews
from registry.client.serving import AsyncClient
from registry.errors import InvalidRequest
from registry.gate.curtail import accuracy_is_lost, forgetting_is_lost
from registry.gate.summary import Sections, summarise
from registry.licensed import REVIEW_FIELDS, is_after, moment, void_review
from registry.names import digest_of
from registry.suites import (
    Choice,
    Conversation,
    Document,
    Item,
    LmEvalTask,
    Message,
    Prompt,
    Question,
    Refusal,
    SuiteContent,
    read_suite,
)

__all__ = [
    "REVIEW_FIELDS",
    "AsyncClient",
    "Choice",
    "Client",
    "Conversation",
    "Document",
    "InvalidRequest",
    "Item",
    "LmEvalTask",
    "Message",
    "Prompt",
    "Question",
    "Refusal",
    "Refused",
    "Sections",
    "SuiteContent",
    "Unreachable",
    "accuracy_is_lost",
    "describe_base",
    "describe_file",
    "digest_of",
    "forgetting_is_lost",
    "is_after",
    "moment",
    "read_suite",
    "summarise",
    "void_review",
]


class Client(Adapters, Jobs, Reviews, Administration, Blobs):
    """Blocking client. Raises Refused for what the registry refuses and Unreachable where there is no answer."""
