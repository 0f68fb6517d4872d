"""The rules of one competition: which answers are legal, how long, on what, and how it scores.

    aimo3 = load_competition("aimo3")
    aimo3.legal_answer(100_000)  # None: out of range

`load_competition` also reads a user's own YAML with the fields of `Competition`.
"""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from fastmath_kit.errors import ConfigError, unknown_name
from fastmath_kit.problems.answers import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Competition:
    """Rules of one competition.

    Attributes:
        name: Short name, also the folder under `kernels_submission/`.
        slug: Kaggle's name in addresses and mount paths.
        server: `module.Class` of the inference server in the mounted `kaggle_evaluation` package.
        min_answer: Smallest legal answer.
        max_answer: Largest legal answer.
        modulus: Answers are taken modulo this before the range is checked; None if the statement
            says so itself.
        num_problems: Problems of one hidden run.
        notebook_limit_s: Kaggle's limit on the whole notebook with a GPU.
        startup_limit_s: How long the gateway waits for the inference server.
        call_limit_s: Longest answer to one problem after the first; None if only the notebook's
            limit counts.
        gpu: Kaggle's accelerator name.
        num_gpus: GPUs of that accelerator.
    """

    name: str
    slug: str
    server: str
    min_answer: int = 0
    max_answer: int = 99_999
    modulus: int | None = None
    num_problems: int = 50
    notebook_limit_s: float = 18_000.0
    startup_limit_s: float = 900.0
    call_limit_s: float | None = None
    gpu: str = "NvidiaH100"
    num_gpus: int = 1

    def __post_init__(self) -> None:
        if self.min_answer > self.max_answer:
            raise ConfigError(
                f"min_answer must not exceed max_answer, got min_answer={self.min_answer}, "
                f"max_answer={self.max_answer}."
            )
        if self.modulus is not None and self.modulus < 1:
            raise ConfigError(f"modulus must be at least 1 or null, got {self.modulus}.")
        positive = ("num_problems", "notebook_limit_s", "startup_limit_s", "call_limit_s")
        for name in (*positive, "num_gpus"):
            value = getattr(self, name)
            if value is not None and not value > 0:  # also refuses NaN
                raise ConfigError(f"{name} must be positive, got {value}.")

    def legal_answer(self, answer: Answer | None) -> int | None:
        """Returns the answer as this competition counts it, or None if it cannot be one.

        >>> load_competition("aimo2").legal_answer(-900)
        100
        """
        if not isinstance(answer, int):
            return None
        if self.modulus is not None:
            answer %= self.modulus
        return answer if self.min_answer <= answer <= self.max_answer else None


def competition_names() -> list[str]:
    """Returns the names of the competitions this package knows."""
    return sorted(_COMPETITIONS)


def load_competition(name: str | Path) -> Competition:
    """Returns a known competition, or one described by a YAML file of `Competition`'s fields.

    Raises:
        ConfigError: unknown name or field; the message holds the nearest known one.
    """
    if str(name) in _COMPETITIONS:
        return _COMPETITIONS[str(name)]
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        raise ConfigError(unknown_name("competition", str(name), competition_names()))
    if not path.is_file():
        raise ConfigError(f"{path}: no such competition file. Known: {', '.join(_COMPETITIONS)}.")
    return _read_yaml(path)


def _read_yaml(path: Path) -> Competition:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())  # a YAML error spans lines
        raise ConfigError(f"{path}: not YAML ({reason}).") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected fields such as `name: mine`, got {values!r}.")
    known = {field.name: field for field in fields(Competition)}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{path}: {unknown_name('field', str(key), list(known))}")
        if not _has_type(value, known[key].type):
            raise ConfigError(f"{path}: {key} has the wrong type, got {value!r}.")
    required = [name for name, field in known.items() if field.default is MISSING]
    if missing := [name for name in required if name not in values]:
        raise ConfigError(f"{path}: no field {missing[0]!r}. Needed: {', '.join(required)}.")
    try:
        return Competition(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _has_type(value: object, expected: type) -> bool:
    """Whether a YAML value fits a field; a whole number is also a float, a boolean is no number."""
    if isinstance(value, bool):
        return False
    return isinstance(value, expected) or (
        isinstance(value, int) and expected in (float, float | None)
    )


_COMPETITIONS = {
    "aimo2": Competition(
        name="aimo2",
        slug="ai-mathematical-olympiad-progress-prize-2",
        server="kaggle_evaluation.aimo_2_inference_server.AIMO2InferenceServer",
        max_answer=999,
        modulus=1000,
        call_limit_s=1_800.0,
        gpu="NvidiaL4",
        num_gpus=4,
    ),
    "aimo3": Competition(
        name="aimo3",
        slug="ai-mathematical-olympiad-progress-prize-3",
        server="kaggle_evaluation.aimo_3_inference_server.AIMO3InferenceServer",
        call_limit_s=32_400.0,
    ),
}
