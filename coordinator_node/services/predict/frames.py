"""Frames that models answer with, as Parquet, unpacked only where they do not grow beyond measure.

Parquet packs what repeats: a file of 500 KB may hold a hundred million rows, and unpacking it would stop the worker,
and with it every other model. So what a file says of itself is looked at before anything of it is unpacked.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow.parquet as pq

MAX_VALUES = 131_072
"""The most values in all columns together: 1 MiB of numbers."""

MAX_CHARACTERS = 1024 * 1024
"""The most characters in all texts together."""

MAX_TEXT_BYTES = 512 * 1024 * 1024
"""The most that texts could take unpacked, were each as long as all that its column holds."""


class FrameTooLargeError(ValueError):
    """A frame that is small only as long as it is packed; the message says how large it is."""


def read_frame(content: bytes) -> Any:
    """The frame as pandas has it.

    Raises:
        FrameTooLargeError: it holds too much.
        Exception: pyarrow's, where the content is no Parquet file.
    """
    _check_claims(pq.read_metadata(io.BytesIO(content)))
    frame = pq.read_table(io.BytesIO(content)).to_pandas()
    characters = sum(_characters(frame.iloc[:, index]) for index in range(frame.shape[1]))
    if characters > MAX_CHARACTERS:
        raise FrameTooLargeError(f"frame with texts of {characters} characters; at most {MAX_CHARACTERS} are read")
    return frame


def _check_claims(metadata: Any) -> None:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(metadata.num_columns)]
    values = max(metadata.num_rows, sum(chunk.num_values for chunk in chunks))
    if values > MAX_VALUES:
        raise FrameTooLargeError(f"frame of {values} values in {metadata.num_rows} rows; at most {MAX_VALUES} are read")
    texts = [chunk for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"]
    if sum(chunk.num_values * chunk.total_uncompressed_size for chunk in texts) > MAX_TEXT_BYTES:
        raise FrameTooLargeError(f"frame of {metadata.num_rows} rows whose texts may be larger than {MAX_TEXT_BYTES}")


def _characters(column: Any) -> int:
    """How long the texts of a column are together; several rows may share one in memory, and none in the database."""
    if column.dtype.kind in "biufcmM":
        return 0
    return sum(len(value) for value in column if isinstance(value, str | bytes))
