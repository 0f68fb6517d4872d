r"""Plain predictors of length, which an encoder has to beat: the median, and counts in the text.

    train, held_out = split_labels(labels, held_out=0.2, seed=0)
    model = fit_features(train)  # ridge regression on counts of words, digits, operators, commands
    model.predict(["What is $7-2$?"])[0].mean_tokens

Both learn the logarithm of tokens. Everything is numpy and takes milliseconds.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastmath_kit.training.length_labels import LengthLabel, LengthPrediction, prediction

_COUNTED = {
    "characters": r"\S",
    "words": r"[A-Za-z]{2,}",
    "sentences": r"[.?!](?:\s|$)",
    "formulas": r"\$[^$]+\$|\\\[|\\\(|\\begin",
    "commands": r"\\[a-zA-Z]+",
    "numbers": r"\d+",
    "digits": r"\d",
    "plus": r"\+",
    "minus": r"-",
    "times": r"\*|\\times|\\cdot",
    "fractions": r"/|\\[dt]?frac|\\div",
    "powers": r"\^",
    "roots": r"\\sqrt",
    "relations": r"[=<>]|\\(?:leq?|geq?|neq?|equiv)(?![a-zA-Z])",
    "remainders": r"\\p?mod|\\bmod|remainder|modulo",
    "sums": r"\\sum|\\prod|\\int|\\dots|\\ldots|\\cdots",
    "parentheses": r"[(\[]",
    "variables": r"(?<![A-Za-z\\])[a-zA-Z](?![A-Za-z])",
}
_PATTERNS = tuple(re.compile(pattern) for pattern in _COUNTED.values())
_PENALTIES = tuple(10.0**power for power in np.arange(-4.0, 4.01, 0.25))


def text_features(problem: str) -> np.ndarray:
    """Returns what a statement looks like: logarithms of one plus counts, and its largest number.

    >>> text_features("What is $7-2$?").shape
    (19,)
    """
    counts = [math.log1p(len(pattern.findall(problem))) for pattern in _PATTERNS]
    longest = max(map(len, re.findall(r"\d+", problem)), default=0)
    return np.array([*counts, float(longest)])


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureModel:
    """A linear model of the logarithm of tokens; without weights it says the same of all problems.

    Attributes:
        center: Mean of each feature where it was fitted.
        weights: What one more of it adds to the logarithm of tokens.
        mean_log_tokens: Where all features are at their center.
        sd_log: As in `LengthPrediction`, of problems it was not fitted on.
        penalty: The ridge's, chosen by leaving one problem out at a time; None without features.
    """

    center: np.ndarray
    weights: np.ndarray
    mean_log_tokens: float
    sd_log: float
    penalty: float | None = None

    def predict(self, problems: Sequence[str]) -> list[LengthPrediction]:
        """Returns a prediction for each statement."""
        return [
            prediction(
                self.mean_log_tokens + float((text_features(problem) - self.center) @ self.weights),
                self.sd_log,
            )
            for problem in problems
        ]


def fit_median(labels: Sequence[LengthLabel]) -> FeatureModel:
    """Returns the model that predicts the median of the labels for every problem."""
    logs_P = np.array([label.mean_log_tokens for label in labels])
    sds_P = np.array([label.sd_log_tokens for label in labels])
    median, nothing = float(np.median(logs_P)), np.zeros(len(_COUNTED) + 1)
    sd_log = math.sqrt(float(((logs_P - median) ** 2 + sds_P**2).mean()))
    return FeatureModel(center=nothing, weights=nothing, mean_log_tokens=median, sd_log=sd_log)


def fit_features(labels: Sequence[LengthLabel]) -> FeatureModel:
    """Returns the ridge regression whose penalty leaves the least error on problems left out.

    The errors of leaving one problem out come from the hat matrix, so nothing is fitted twice; the
    spread of a prediction is made of them and of the traces' own spread.
    """
    features_P_F = np.array([text_features(label.problem) for label in labels])
    logs_P = np.array([label.mean_log_tokens for label in labels])
    sds_P = np.array([label.sd_log_tokens for label in labels])
    center, scale = features_P_F.mean(axis=0), features_P_F.std(axis=0)
    scale[scale < 1e-9] = 1.0  # a feature that never varies gets no weight
    left, singular, right = np.linalg.svd((features_P_F - center) / scale, full_matrices=False)
    mean = float(logs_P.mean())
    best: tuple[float, float, np.ndarray] | None = None
    for penalty in _PENALTIES:
        shrink = singular**2 / (singular**2 + penalty)
        fitted_P = left @ (shrink * (left.T @ (logs_P - mean)))
        leverage_P = (left**2) @ shrink + 1 / len(labels)
        errors_P = (logs_P - mean - fitted_P) / np.maximum(1 - leverage_P, 1e-6)
        if best is None or float((errors_P**2).mean()) < best[0]:
            best = float((errors_P**2).mean()), penalty, errors_P
    assert best is not None
    _, penalty, errors_P = best
    weights = right.T @ (singular / (singular**2 + penalty) * (left.T @ (logs_P - mean)))
    return FeatureModel(
        center=center,
        weights=weights / scale,
        mean_log_tokens=mean,
        sd_log=math.sqrt(float((errors_P**2 + sds_P**2).mean())),
        penalty=penalty,
    )
