"""What every event of the journal is."""

from msgspec import Struct


class Event(Struct, frozen=True, kw_only=True):
    """Base of all events; the tag is the event's name."""
