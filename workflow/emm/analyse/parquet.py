"""Result tables as Parquet files with a checksum per page."""

import zlib
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from emm.files import atomic_path, checked

SHAPE_KEY = b"emm.shape"  # Parquet has no checksum of its footer: names and row count live there


def write_table(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a table atomically; its index is dropped."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, SHAPE_KEY: _shape(frame)})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a table, verifying its checksums; a missing or damaged file is a UserError."""
    return checked(path, _read)


def _read(path: Path) -> pd.DataFrame:
    with path.open("rb") as stream:
        try:
            table = pq.read_table(stream, page_checksum_verification=True)
            frame = table.to_pandas()
        except (pa.ArrowException, TypeError) as error:
            raise ValueError(str(error).splitlines()[0]) from error
    if (table.schema.metadata or {}).get(SHAPE_KEY, _shape(frame)) != _shape(frame):
        raise ValueError("column names or row count differ from those written")
    return frame


def _shape(frame: pd.DataFrame) -> bytes:
    names = zlib.crc32("\n".join(frame.columns).encode())
    return b"%d rows, names %08x" % (len(frame), names)
