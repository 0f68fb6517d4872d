"""What Kaggle accepts: which function as `predict`, and which values from it.

Some values are refused at once: an exception, None, a dict, two rows. Others pass until every
problem was answered and fail when the file is written: a bare number or text, a Series, polars
mixed with pandas. Floats, nulls and a column that became text pass, and score nothing; here they
are logged.

One difference is on purpose: the ids of the file are always text, while Kaggle lets all-digit ids
become whole numbers.
"""

import logging
import sys
from collections.abc import Callable
from types import FunctionType

from fastmath_kit.errors import ConfigError, EngineError

_logger = logging.getLogger(__name__)
_WANTED = "a polars DataFrame of one row with the columns id and answer"


def check_predict(predict: Callable) -> None:
    """Refuses what Kaggle refuses: everything but a plain function named `predict`.

    Raises:
        ConfigError: Kaggle's server would not take it, or its gateway would not find it.
    """
    if not isinstance(predict, FunctionType):
        raise ConfigError(
            f"predict must be a plain function, got {type(predict).__name__}. Kaggle refuses bound "
            "methods, partials and callable objects: wrap it in `def predict(id_, problem): …`."
        )
    if predict.__name__ != "predict":
        raise ConfigError(
            f"the function must be named 'predict', got {predict.__name__!r}: the gateway calls it "
            "by name. Rename it."
        )


def call_failure(problem_id: str | int, error, limit_s: float | None) -> EngineError:
    """Returns the error of a call that came back without a value.

    Args:
        problem_id: The problem that was sent.
        error: The `grpc.RpcError`.
        limit_s: How long the call was allowed to take, None without a limit.
    """
    import grpc

    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return EngineError(
            f"problem {problem_id!r}: predict took longer than {limit_s} s, the limit of one call. "
            "Lower the policy's time for one problem."
        )
    return EngineError(
        f"problem {problem_id!r}: predict failed ({error.details()}). Kaggle ends the run at the "
        "first exception: answer a fallback instead, as make_predict does."
    )


def check_return(problem_id: str | int, value):
    """Returns a value that Kaggle takes for now.

    Raises:
        EngineError: a value that Kaggle refuses at once.
    """
    tables = _table_types()
    if not isinstance(value, (*tables, str, int, float)):
        raise EngineError(
            f"problem {problem_id!r}: predict returned {type(value).__name__}. Return {_WANTED}."
        )
    if isinstance(value, tables) and len(value) != 1:
        raise EngineError(
            f"problem {problem_id!r}: predict returned {len(value)} rows. Return {_WANTED}."
        )
    return value


def submission_table(returned: list, ids: list[str]):
    """Returns the polars table of the submission, in served order.

    Args:
        returned: What `check_return` let pass, in served order.
        ids: The problems' ids in served order.

    Raises:
        EngineError: values that Kaggle refuses after the last problem.
    """
    import polars as pl

    kinds = {type(value) for value in returned}
    if len(kinds) != 1 or not kinds <= {kind for kind in _table_types() if "Frame" in str(kind)}:
        names = sorted(f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in kinds)
        raise EngineError(
            f"every problem was answered, but {' and '.join(names)} cannot become a submission. "
            f"Return {_WANTED} each time."
        )
    frames = [
        value if isinstance(value, pl.DataFrame) else pl.from_pandas(value) for value in returned
    ]
    try:
        table = pl.concat(frames, how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise EngineError(
            f"every problem was answered, but the columns differ from one answer to the next "
            f"({error}). Return {_WANTED} each time."
        ) from error
    if table.schema.get("answer") != pl.Int64:
        _logger.warning("the column answer is %s, not Int64", table.schema.get("answer"))
    table = table.with_columns(pl.Series("id", ids, dtype=pl.String))
    return table.select("id", pl.exclude("id"))


def _table_types() -> tuple[type, ...]:
    import polars as pl

    pandas = sys.modules.get("pandas")  # nothing is a pandas table before pandas is imported
    return (pl.DataFrame, pl.Series) + ((pandas.DataFrame, pandas.Series) if pandas else ())
