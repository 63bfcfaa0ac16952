"""The ledger: what became of every input row. One Parquet file, part of an adapter's training record.

A row ends as trained, validation, test, duplicate, too_long, blocked (it lacks what the recipe requires of its
provenance) or, for replay, empty (the base gave no whole answer), or, for a preference pair, held_out (a held-out row
asks the same); nothing is left out in silence.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb


class LedgerRow(NamedTuple):
    """`rendered_sha256` is of the text after the chat template: what the model really saw.

    origin and what follows: where the row comes from, as the data says it; empty where it says nothing.
    """

    source: str  # "data", "replay", or "dpo" for a preference pair
    id: str
    line: int
    group: str
    disposition: str
    reason: str
    content_sha256: str
    rendered_sha256: str
    tokens: int
    trained_tokens: int
    origin: str = ""  # the row's own `source`
    licence: str = ""
    collector: str = ""
    reviewer: str = ""
    credential: str = ""
    reviewed_at: str = ""
    credential_valid_until: str = ""


def write_ledger(path: Path, rows: Sequence[LedgerRow]) -> None:
    """Write the rows in order; the same rows give the same bytes."""
    with duckdb.connect() as db:
        db.execute(
            'CREATE TABLE ledger (source TEXT, id TEXT, line BIGINT, "group" TEXT, disposition TEXT, reason TEXT, '
            "content_sha256 TEXT, rendered_sha256 TEXT, tokens BIGINT, trained_tokens BIGINT, origin TEXT, "
            "licence TEXT, collector TEXT, reviewer TEXT, credential TEXT, reviewed_at TEXT, "
            "credential_valid_until TEXT)"
        )
        for start in range(0, len(rows), 500):
            batch = rows[start : start + 500]
            marks = ", ".join([f"({', '.join('?' * len(LedgerRow._fields))})"] * len(batch))
            db.execute(f"INSERT INTO ledger VALUES {marks}", [value for row in batch for value in row])
        quoted = str(path).replace("'", "''")
        db.execute(f"COPY ledger TO '{quoted}' (FORMAT parquet)")
