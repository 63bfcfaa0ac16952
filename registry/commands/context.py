"""What a command is: a function of a context that answers and says which events happened. It changes nothing itself."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from registry.access import Principal
from registry.approval.attestation import Signer
from registry.commands.leases import Leases
from registry.events import AnyEvent
from registry.records import ItemRow
from registry.storage.blobs import LocalBlobs
from registry.storage.progress import ProgressFiles
from registry.storage.views import View


class Services(NamedTuple):
    """What commands may use besides the catalog. Blobs are only read: they are stored before a command names them,
    and deleted after one has said so.

    read_rows: the per-item rows of a Parquet blob, given its sha256; EvidenceRefused if it is not one.
    approval_days: after how many days an approval expires.
    progress: what workers tell of training runs; of no weight in any decision.
    """

    blobs: LocalBlobs
    signer: Signer
    draw_secret: bytes
    leases: Leases
    read_rows: Callable[[str], list[ItemRow]]
    approval_days: int
    progress: ProgressFiles


class Context(NamedTuple):
    """The state a command decides on, who asks, and when. `now` is the text that the events will carry."""

    view: View
    principal: Principal
    now: str
    time: datetime
    services: Services


class Outcome(NamedTuple):
    """The answer and what happened. `remembered` replaces the answer in the journal where it holds a secret.

    discard: blobs to delete once the events are committed, unless something needs them by then.
    """

    answer: Any
    events: Sequence[AnyEvent] = ()
    status: int = 200
    remembered: Any = None
    discard: Sequence[str] = ()


Command = Callable[[Context], Outcome]
