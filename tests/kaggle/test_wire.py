import io

import polars as pl
import pyarrow.ipc
import pytest

from fastmath_kit.kaggle.wire import from_payload, messages, to_payload


@pytest.mark.parametrize(
    "value",
    [
        "a",
        "",
        True,
        False,
        0,
        -(2**63),
        2**63 - 1,
        0.5,
        None,
        [1, "a", None],
        (1, [2, (3,)]),
        {"a": {"b": [1.5]}},
    ],
)
def test_scalars_and_containers_survive(value):
    returned = from_payload(to_payload(value))
    assert returned == value
    assert type(returned) is type(value)


@pytest.mark.parametrize(
    "table",
    [
        pl.DataFrame({"id": ["a"], "answer": [7]}),
        pl.DataFrame({"answer": [None, 1.5]}),
        pl.Series("id", ["ü", None]),
        pl.Series([1]),  # unnamed
        pl.Series("id", [], dtype=pl.Int64),
    ],
)
def test_polars_tables_survive(table):
    returned = from_payload(to_payload(table))
    assert type(returned) is type(table)
    assert returned.equals(table, null_equal=True)


def test_pandas_tables_survive():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": ["a"], "answer": [7]})
    assert from_payload(to_payload(frame)).equals(frame)
    assert from_payload(to_payload(pandas.Series([7]))).to_list() == [7]


def test_both_encodings_of_kaggles_package_are_read():
    frame = pl.DataFrame({"id": ["a1"]})
    parquet, stream = io.BytesIO(), io.BytesIO()
    frame.write_parquet(parquet, compression="lz4")  # older
    table = frame.to_arrow()
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")  # newer
    with pyarrow.ipc.new_stream(stream, table.schema, options=options) as writer:
        writer.write_table(table)
    for data in (parquet.getvalue(), stream.getvalue()):
        assert from_payload(messages().Payload(polars_dataframe_value=data)).equals(frame)
        series = from_payload(messages().Payload(polars_series_value=data))
        assert series.equals(frame["id"])


def test_what_we_send_is_what_kaggles_package_reads():
    frame = pl.DataFrame({"id": ["a1"], "answer": [7]})
    data = to_payload(frame).polars_dataframe_value
    assert pl.from_arrow(pyarrow.ipc.open_stream(data).read_all()).equals(frame)
    data = to_payload(frame["id"]).polars_series_value
    assert pl.Series(pl.read_parquet(io.BytesIO(data))).equals(frame["id"])


def test_field_numbers_are_the_protocols():
    # the first byte of a message is its field number and wire type
    expected = {
        "a": b"\x0a\x01a",
        True: b"\x10\x01",
        -1: b"\x18\x01",  # sint64 is zigzag
        0.5: b"\x25\x00\x00\x00\x3f",
        None: b"\x28\x01",
    }
    for value, data in expected.items():
        assert to_payload(value).SerializeToString() == data
    request = messages().Request(
        name="predict", args=[to_payload("a")], kwargs={"k": to_payload(1)}
    )
    assert request.SerializeToString() == (
        b"\x0a\x07predict" + b"\x12\x03\x0a\x01a" + b"\x1a\x07\x0a\x01k\x12\x02\x18\x02"
    )
    fields = messages().Payload.DESCRIPTOR.fields_by_name
    assert fields["polars_series_value"].number == 12
    assert fields["bytes_io_value"].number == 15


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 1j])
def test_other_types_are_refused_as_kaggle_refuses_them(value):
    with pytest.raises(TypeError, match="cannot travel"):
        to_payload(value)


def test_unknown_kinds_are_refused():
    with pytest.raises(TypeError, match="numpy_array_value"):
        from_payload(messages().Payload(numpy_array_value=b""))
    with pytest.raises(TypeError, match="kind None"):
        from_payload(messages().Payload())


def test_whole_numbers_end_at_64_bits():
    with pytest.raises(ValueError, match=r"\d"):
        to_payload(2**63)
