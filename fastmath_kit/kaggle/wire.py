"""The wire format of Kaggle's evaluation service: Python values as protobuf payloads.

Kaggle's own package compiles a `.proto` file at start. Here the same messages are described at run
time, in a descriptor pool of their own, so that both can live in one process:

    payload = to_payload(pl.Series("id", ["a1"]))
    from_payload(payload)  # the same series

Only what a math olympiad sends is spoken: scalars, lists, tuples, dicts, polars and pandas tables.
"""

import io
import sys
from functools import cache
from types import SimpleNamespace

PACKAGE = "kaggle_evaluation_client"
SERVICE = f"{PACKAGE}.KaggleEvaluationService"
SEND = f"/{SERVICE}/Send"

_PARQUET_MAGIC = b"PAR1"
_BYTES_FIELDS = (  # in order of their numbers, 9 to 15
    "pandas_dataframe_value",
    "polars_dataframe_value",
    "pandas_series_value",
    "polars_series_value",
    "numpy_array_value",
    "numpy_scalar_value",
    "bytes_io_value",
)


@cache
def messages() -> SimpleNamespace:
    """Returns the message classes `Request`, `Response`, `Payload`, `PayloadList`, `PayloadMap`."""
    from google.protobuf import descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file_descriptor().SerializeToString())
    names = {"Request": "KaggleEvaluationRequest", "Response": "KaggleEvaluationResponse"}
    names |= {name: name for name in ("Payload", "PayloadList", "PayloadMap")}
    found = {
        short: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for short, name in names.items()
    }
    return SimpleNamespace(**found)


def _file_descriptor():
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto(name="kaggle_evaluation.proto", package=PACKAGE, syntax="proto3")
    request = file.message_type.add(name="KaggleEvaluationRequest")
    _field(request, "name", 1, "string")
    _field(request, "args", 2, "Payload", repeated=True)
    _payload_map(request, "kwargs", 3)
    _field(file.message_type.add(name="KaggleEvaluationResponse"), "payload", 1, "Payload")
    payload = file.message_type.add(name="Payload")
    payload.oneof_decl.add(name="value")
    scalars = {"str": "string", "bool": "bool", "int": "sint64", "float": "float", "none": "bool"}
    nested = {"list": "PayloadList", "tuple": "PayloadList", "dict": "PayloadMap"}
    kinds = {f"{name}_value": kind for name, kind in (scalars | nested).items()}
    kinds |= dict.fromkeys(_BYTES_FIELDS, "bytes")
    for number, (name, kind) in enumerate(kinds.items(), start=1):
        _field(payload, name, number, kind).oneof_index = 0
    _field(file.message_type.add(name="PayloadList"), "payloads", 1, "Payload", repeated=True)
    _payload_map(file.message_type.add(name="PayloadMap"), "payload_map", 1)
    return file


def _field(message, name: str, number: int, kind: str, *, repeated: bool = False):
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if kind in {"string", "bool", "sint64", "float", "bytes"}:
        field.type = field.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    return field


def _payload_map(message, name: str, number: int) -> None:
    """Adds `map<string, Payload>`, which on the wire is a repeated message of key and value."""
    entry = message.nested_type.add(
        name=f"{name.title().replace('_', '')}Entry", options={"map_entry": True}
    )
    _field(entry, "key", 1, "string")
    _field(entry, "value", 2, "Payload")
    _field(message, name, number, f"{message.name}.{entry.name}", repeated=True)


def to_payload(value):
    """Returns `value` as a `Payload` message.

    Raises:
        TypeError: a type that cannot travel, as Kaggle's own client raises.
        ValueError: a whole number beyond 64 bits.
    """
    import polars as pl

    pb = messages()
    if isinstance(value, bool):  # a bool is an int too: first
        return pb.Payload(bool_value=value)
    for kind, field in ((str, "str_value"), (int, "int_value"), (float, "float_value")):
        if isinstance(value, kind):
            return pb.Payload(**{field: value})
    if value is None:
        return pb.Payload(none_value=True)
    if isinstance(value, list):
        return pb.Payload(list_value=pb.PayloadList(payloads=map(to_payload, value)))
    if isinstance(value, tuple):
        return pb.Payload(tuple_value=pb.PayloadList(payloads=map(to_payload, value)))
    if isinstance(value, dict):
        items = {key: to_payload(item) for key, item in value.items()}
        return pb.Payload(dict_value=pb.PayloadMap(payload_map=items))
    if isinstance(value, pl.DataFrame):
        return pb.Payload(polars_dataframe_value=_ipc_bytes(value))
    if isinstance(value, pl.Series):
        return pb.Payload(polars_series_value=_parquet_bytes(value.to_frame().write_parquet))
    return _pandas_payload(value)


def _pandas_payload(value):
    pandas = sys.modules.get("pandas")  # nothing is a pandas table before pandas is imported
    if pandas is not None and isinstance(value, pandas.DataFrame | pandas.Series):
        is_frame = isinstance(value, pandas.DataFrame)
        field = "pandas_dataframe_value" if is_frame else "pandas_series_value"
        frame = value if is_frame else pandas.DataFrame(value)
        frame = frame.rename(columns=str)  # an unnamed series is column 0, parquet wants text
        data = _parquet_bytes(lambda buffer: frame.to_parquet(buffer, index=False))
        return messages().Payload(**{field: data})
    raise TypeError(
        f"{type(value)} cannot travel to the gateway. Return a polars DataFrame of one row with "
        "the columns id and answer."
    )


def _ipc_bytes(frame) -> bytes:
    import polars as pl

    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer, compat_level=pl.CompatLevel.oldest())  # any pyarrow reads it
    return buffer.getvalue()


def _parquet_bytes(write) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def from_payload(payload):
    """Returns the Python value of a `Payload` message.

    Raises:
        TypeError: a kind of value no math olympiad sends.
    """
    field = payload.WhichOneof("value")
    value = getattr(payload, field) if field else None
    match field:
        case "str_value" | "bool_value" | "int_value" | "float_value":
            return value
        case "none_value":
            return None
        case "list_value":
            return [from_payload(item) for item in value.payloads]
        case "tuple_value":
            return tuple(from_payload(item) for item in value.payloads)
        case "dict_value":
            return {key: from_payload(item) for key, item in value.payload_map.items()}
        case "polars_dataframe_value":
            return _read_polars(value)
        case "polars_series_value":
            return _read_polars(value).to_series()
        case "pandas_dataframe_value":
            return _read_pandas(value)
        case "pandas_series_value":
            return _read_pandas(value).iloc[:, 0]
    raise TypeError(f"a payload of kind {field} was received, which no math olympiad sends.")


def _read_polars(data: bytes):
    """Reads parquet (older versions of the package) or an Arrow stream (newer), by the magic."""
    import polars as pl

    is_parquet = data.startswith(_PARQUET_MAGIC)
    return pl.read_parquet(data) if is_parquet else pl.read_ipc_stream(data)


def _read_pandas(data: bytes):
    import pandas

    return pandas.read_parquet(io.BytesIO(data))
