"""Per-item results as Parquet: which columns they have, and how DuckDB reads them without reaching anything else."""

from pathlib import Path

import duckdb

from registry.errors import EvidenceRefused
from registry.records import ItemRow
from registry.storage.views import ITEM_COLUMNS, item_row

ITEM_TYPES = {
    "suite": "VARCHAR",
    "item": "VARCHAR",
    "subject": "VARCHAR",
    "prompt": "VARCHAR",
    "output": "VARCHAR",
    "correct": "BOOLEAN",
    "nll_nats": "DOUBLE",
    "n_tokens": "BIGINT",
    "finish": "VARCHAR",
    "contaminated": "BOOLEAN",
    "tags": "VARCHAR[]",
    "n_bytes": "BIGINT",
    "gold_nll_nats": "DOUBLE",
    "gold_tokens": "BIGINT",
    "kl_nats": "DOUBLE",
    "kl_tokens": "BIGINT",
}
# The columns of rows written before there were tags: a journal that names such a blob must still fold.
_FIRST_TYPES = dict(list(ITEM_TYPES.items())[: list(ITEM_TYPES).index("tags")])
_UNTAGGED = ", ".join(
    ["CAST([] AS VARCHAR[]) AS tags"]
    + [f"CAST(NULL AS {kind}) AS {name}" for name, kind in ITEM_TYPES.items() if name not in (*_FIRST_TYPES, "tags")]
)


def source_of(db: duckdb.DuckDBPyConnection, path: Path) -> str:
    """A FROM clause over a Parquet file of per-item results that this connection may read.

    Raises EvidenceRefused for other columns than those of an ItemRow, duckdb.Error for what is no Parquet file.
    """
    source = f"read_parquet({quoted(str(path.resolve()))})"
    found = {row[0]: row[1] for row in db.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    if found == _FIRST_TYPES:
        return f"(SELECT *, {_UNTAGGED} FROM {source})"
    if found != ITEM_TYPES:
        raise EvidenceRefused(f"the per-item rows have columns {found}, expected {ITEM_TYPES}")
    return source


def rows_of(db: duckdb.DuckDBPyConnection, source: str) -> list[ItemRow]:
    found = db.execute(f"SELECT {', '.join(ITEM_COLUMNS)} FROM {source}").fetchall()
    return [item_row(row) for row in found]


def read_rows(path: Path) -> list[ItemRow]:
    """The rows of a file, by a connection that may read this file and nothing else; raises as `source_of`."""
    with duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}) as db:
        db.execute(f"SET allowed_paths = [{quoted(str(path.resolve()))}]")
        db.execute("SET enable_external_access = false")
        return rows_of(db, source_of(db, path))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
