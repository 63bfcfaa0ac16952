"""What a search of versions asks of their measured values: `accuracy >= 0.85 and perplexity < 6.2`.

Read into conditions here and bound as parameters there: nothing that a client wrote ever becomes part of a query.
"""

import math
import re
from enum import StrEnum
from typing import NamedTuple

from registry.errors import InvalidRequest

MAX_CONDITIONS = 10
_CONDITION = re.compile(
    r"\s*(?P<metric>[a-z][a-z0-9_]*(?::[a-z0-9/-]+)?)\s*(?P<operator><=|>=|<|>|=)\s*"
    r"(?P<value>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*",
    re.ASCII,
)
_AND = re.compile(r"\s+and\s+", re.IGNORECASE | re.ASCII)


class Operator(StrEnum):
    LESS = "<"
    AT_MOST = "<="
    EQUAL = "="
    AT_LEAST = ">="
    MORE = ">"


class Condition(NamedTuple):
    """metric: the name of a check of the gate report, which observed the value."""

    metric: str
    operator: Operator
    value: float


def read_conditions(text: str) -> list[Condition]:
    """Conditions that all must hold; InvalidRequest says which part cannot be read.

    >>> read_conditions("accuracy >= 0.85 and perplexity < 6.2")[1]
    Condition(metric='perplexity', operator=<Operator.LESS: '<'>, value=6.2)
    """
    parts = _AND.split(text)
    if len(parts) > MAX_CONDITIONS:
        raise InvalidRequest(f"{len(parts)} conditions are more than {MAX_CONDITIONS}; ask for fewer at once")
    return [_read(part) for part in parts]


def _read(part: str) -> Condition:
    found = _CONDITION.fullmatch(part)
    value = float(found["value"]) if found else math.nan
    if found is None or not math.isfinite(value):
        raise InvalidRequest(
            f"condition {part.strip()[:100]!r} cannot be read; write `METRIC OPERATOR NUMBER`, joined by `and`, "
            "as in `accuracy >= 0.85 and perplexity < 6.2`; the metrics are the checks of the gate report"
        )
    return Condition(found["metric"], Operator(found["operator"]), value)
