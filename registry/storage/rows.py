"""Per-item results as Parquet: which columns they have, and how DuckDB reads them without reaching anything else."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import duckdb

from registry.errors import EvidenceRefused
from registry.records import ItemRow
from registry.storage.views import ITEM_COLUMNS, item_row

_log = logging.getLogger("tunegate")

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

    Raises EvidenceRefused for what is no Parquet file, or has other columns than those of an ItemRow.
    """
    source = f"read_parquet({quoted(str(path.resolve()))})"
    with _readable():
        found = {row[0]: row[1] for row in db.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    if found == _FIRST_TYPES:
        return f"(SELECT *, {_UNTAGGED} FROM {source})"
    if found != ITEM_TYPES:
        raise EvidenceRefused(f"the per-item rows have columns {found}, expected {ITEM_TYPES}")
    return source


def rows_of(db: duckdb.DuckDBPyConnection, source: str) -> list[ItemRow]:
    with _readable():
        found = db.execute(f"SELECT {', '.join(ITEM_COLUMNS)} FROM {source}").fetchall()
    return [item_row(row) for row in found]


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """A damaged file is refused. DuckDB has no one class for what is wrong in it, and its texts name our paths."""
    try:
        yield
    except (duckdb.FatalException, duckdb.InterruptException, duckdb.PermissionException):
        raise
    except duckdb.Error as error:
        raise _refused(error) from None


def _refused(error: duckdb.Error) -> EvidenceRefused:
    _log.warning("per-item rows could not be read: %s", error)
    return EvidenceRefused("the per-item rows are not a Parquet file that can be read; write them anew and upload them")


def read_rows(path: Path) -> list[ItemRow]:
    """The rows of a file, by a connection that may read this file and nothing else; EvidenceRefused as `source_of`.

    A file can be such that DuckDB gives up the whole database that reads it: this one is thrown away afterwards.
    """
    try:
        with duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}) as db:
            db.execute(f"SET allowed_paths = [{quoted(str(path.resolve()))}]")
            db.execute("SET enable_external_access = false")
            return rows_of(db, source_of(db, path))
    except duckdb.FatalException as error:
        raise _refused(error) from None


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
