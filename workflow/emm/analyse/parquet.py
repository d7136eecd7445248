"""Result tables as Parquet files with a checksum per page."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from emm.files import atomic_path, checked

if TYPE_CHECKING:
    import pandas as pd

SHAPE_KEY = (
    b"emm.columns"  # Parquet has no checksum of its footer: names, types, row count live there
)


def write_table(path: Path | str, frame: "pd.DataFrame") -> None:
    """Write a table atomically; its index is dropped."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, SHAPE_KEY: _shape(table)})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_table(path: Path | str) -> "pd.DataFrame":
    """Read a table, verifying its checksums; a missing or damaged file is a UserError."""
    return checked(path, lambda path: _read(path, pa.Table.to_pandas))


def read_rows(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a table, read as `read_table` does but without pandas, which loads slowly."""
    return checked(path, lambda path: _read(path, pa.Table.to_pylist))


def _read(path: Path, convert: Callable[[pa.Table], Any]) -> Any:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(use_threads=False)  # Arrow's threads can abort a process at its exit
        content = convert(table.replace_schema_metadata())  # pandas' own can be damaged too
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(str(error).splitlines()[0]) from error
    if (table.schema.metadata or {}).get(SHAPE_KEY, _shape(table)) != _shape(table):
        raise ValueError("names or types of columns, or their length, differ from those written")
    return content


def _shape(table: pa.Table) -> bytes:
    columns = "\n".join(f"{field.name}: {field.type}" for field in table.schema)
    known = zlib.crc32(columns.replace("<element:", "<item:").encode())  # Parquet's name of it
    return b"%d rows, columns %08x" % (table.num_rows, known)
