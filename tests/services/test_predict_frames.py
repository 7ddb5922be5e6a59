"""Frames that models send: what is reasonable is read, what would fill the worker's memory is not even unpacked."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_runner_client.grpc.generated.commons_pb2 import VariantType
from model_runner_client.utils.datatype_transformer import encode_data

from coordinator_node.services.predict.answers import MAX_ANSWER_BYTES
from coordinator_node.services.predict.frames import MAX_VALUES, FrameTooLargeError, read_frame


def packed(frame: pd.DataFrame) -> bytes:
    """As a model node sends it."""
    content: bytes = encode_data(VariantType.PARQUET, frame)
    return content


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"value": [0.5], "n": [2]}),
        pd.DataFrame({"value": []}),
        pd.DataFrame({"id": [f"asset-{n}" for n in range(5000)], "value": np.linspace(-1, 1, 5000)}),
        pd.DataFrame({"value": np.zeros(MAX_VALUES)}),
    ],
)
def test_a_frame_of_predictions_is_read(frame: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(read_frame(packed(frame)), frame)


def written(column: pa.Array) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"value": column}), sink)
    return sink.getvalue()


def texts(length: int, rows: int) -> bytes:
    """One text so many times, which is never unpacked here either."""
    return written(pa.DictionaryArray.from_arrays(np.zeros(rows, dtype="int32"), ["x" * length]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (packed(pd.DataFrame({"value": np.zeros(5_000_000)})), "5000000 values"),
        (written(pa.array([np.zeros(5_000_000)])), "5000000 values in 1 rows"),
        (texts(500_000, rows=50_000), "texts may be larger"),
        (texts(50_000, rows=1000), "texts of 50000000 characters"),
    ],
)
def test_what_only_looks_small_is_refused(content: bytes, said: str) -> None:
    assert len(content) < MAX_ANSWER_BYTES
    with pytest.raises(FrameTooLargeError, match=said):
        read_frame(content)
