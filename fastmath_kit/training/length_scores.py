"""How good predictions of length are on held-out problems, with errors.

    scores(model.predict([label.problem for label in held_out]), held_out)["spearman"]
    # {"value": 0.71, "standard_error": 0.05}

Standard errors are of a bootstrap over problems. Lengths are compared as logarithms of tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np

from fastmath_kit.training.length_labels import LengthLabel, LengthPrediction, prediction

_NORMAL_QUANTILE = 1.2815515655446004  # of 0.9: how far an interval of 80 % reaches to either side


def scores(
    predictions: Sequence[LengthPrediction],
    labels: Sequence[LengthLabel],
    *,
    num_draws: int = 1_000,
    seed: int = 0,
) -> dict[str, dict[str, float] | None]:
    """Returns how good predictions of held-out problems are, with errors.

    Args:
        predictions: One a label.
        labels: What was recorded.
        num_draws: Bootstrap draws over problems.
        seed: Fixes them.

    Returns:
        By name a `value` and its bootstrap `standard_error`: `r2` and `spearman` of the problems'
        mean log tokens, `mean_abs_log_error` (0.1 is about 10 %), `rmse_tokens` of the problems'
        mean tokens, and `coverage`, the share of traces inside the 80 % interval (a truncated one
        is inside if the interval does not end before it was cut). None where a draw leaves it
        undefined: the rank correlation of predictions that are all the same.
    """
    columns_P = _columns(predictions, labels)
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, len(labels), len(labels)) for _ in range(num_draws)]
    result: dict[str, dict[str, float] | None] = {}
    for name, measure in _MEASURES.items():
        value = measure(columns_P)
        draws = [measure({key: column[row] for key, column in columns_P.items()}) for row in rows]
        known = [draw for draw in draws if draw is not None]
        result[name] = (
            None if value is None else {"value": value, "standard_error": float(np.std(known))}
        )
    return result


def error_difference(
    ours: Sequence[LengthPrediction],
    theirs: Sequence[LengthPrediction],
    labels: Sequence[LengthLabel],
) -> dict[str, float]:
    """Returns our mean absolute log error less theirs, paired by problem, with standard error."""
    errors = [_columns(predictions, labels) for predictions in (ours, theirs)]
    ours_P, theirs_P = (np.abs(columns["said"] - columns["recorded"]) for columns in errors)
    differences_P = ours_P - theirs_P
    return {
        "value": float(differences_P.mean()),
        "standard_error": float(differences_P.std(ddof=1) / len(labels) ** 0.5),
    }


def _columns(
    predictions: Sequence[LengthPrediction], labels: Sequence[LengthLabel]
) -> dict[str, np.ndarray]:
    """Returns arrays `[P]` of what the measures need."""
    rows = []
    for said, label in zip(predictions, labels, strict=True):
        reach = _NORMAL_QUANTILE * said.sd_log
        low, high = said.mean_log_tokens - reach, said.mean_log_tokens + reach
        logs = np.log(np.maximum(label.tokens, 1))
        inside = (logs <= high) & ((logs >= low) | np.array(label.truncated))
        recorded = prediction(label.mean_log_tokens, label.sd_log_tokens).mean_tokens
        if not any(label.truncated):
            recorded = float(np.mean(label.tokens))
        rows.append(
            {
                "said": said.mean_log_tokens,
                "recorded": label.mean_log_tokens,
                "inside": inside.mean(),
                "off_tokens": said.mean_tokens - recorded,
            }
        )
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def _r2(columns: dict[str, np.ndarray]) -> float | None:
    recorded = columns["recorded"]
    spread = float(((recorded - recorded.mean()) ** 2).sum())
    return 1 - float(((recorded - columns["said"]) ** 2).sum()) / spread if spread > 0 else None


def _spearman(columns: dict[str, np.ndarray]) -> float | None:
    said, recorded = _ranks(columns["said"]), _ranks(columns["recorded"])
    if said.std() == 0 or recorded.std() == 0:
        return None
    return float(np.corrcoef(said, recorded)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks; equal values share the mean of theirs."""
    _, place, counts = np.unique(values.round(9), return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]


_MEASURES: dict[str, Callable[[dict[str, np.ndarray]], float | None]] = {
    "r2": _r2,
    "spearman": _spearman,
    "mean_abs_log_error": lambda c: float(np.abs(c["said"] - c["recorded"]).mean()),
    "rmse_tokens": lambda c: float(np.sqrt((c["off_tokens"] ** 2).mean())),
    "coverage": lambda c: float(c["inside"].mean()),
}
