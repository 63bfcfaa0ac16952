"""Why a request was not answered, as RFC 9457 has it."""

from msgspec import UNSET, UnsetType

from registry.records.judgement import GateReport
from registry.records.words import Record


class Problem(Record):
    """RFC 9457 problem details; `report` comes with `gate_not_satisfied` only."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    problems: list[str] | UnsetType = UNSET
    report: GateReport | UnsetType = UNSET
