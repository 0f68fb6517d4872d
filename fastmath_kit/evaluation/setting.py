"""What an evaluation measured, so that a rerun knows its own finished run from another's.

setting = setting_of("runs/sft", problems, 8, Sampling(max_tokens=128))
is_finished(Path("report.json"), Path("traces.parquet"), setting)
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastmath_kit.errors import ConfigError
from fastmath_kit.inference.endpoint_server import parse_url
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.problems.records import Problem

_FILES = ("*.safetensors", "config.json", "tokenizer*.json", "chat_template*")  # all that counts


def setting_of(
    model: str | Path,
    problems: Sequence[Problem],
    k: int,
    sampling: Sampling,
    endpoints: Sequence[str] = (),
    served_model: str | None = None,
) -> dict[str, Any]:
    """Returns what a finished run must share to count as the same, JSON-ready.

    The arguments are those of `evaluate`.

    Raises:
        ConfigError: an endpoint is no URL.
    """
    files = [path for pattern in _FILES for path in sorted(Path(model).glob(pattern))]
    stamps = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    plain = dataclasses.asdict(dataclasses.replace(sampling, until=None))
    if sampling.until is not None:
        plain["until"] = sampling.until.is_complete.__qualname__  # a function is no JSON
    return {
        "model": str(model),
        "model_files_sha256": _digest(stamps),  # of names, sizes and times: weights are large
        "problems_sha256": _digest([[p.id, p.statement, p.solution] for p in problems]),
        "k": k,
        "sampling": plain,
        "endpoints": [parse_url(url)[0] for url in endpoints] or None,  # without passwords
        "served_model": served_model,
    }


def _digest(value: list) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def is_finished(report_path: Path, traces_path: Path, setting: dict[str, Any]) -> bool:
    """Whether these two files are a finished run of this setting; False where neither stands.

    Raises:
        ConfigError: they are another run.
    """
    advice = f"Choose another folder with --out, or delete {report_path.parent} to measure anew."
    if not report_path.exists():
        if traces_path.exists():
            raise ConfigError(f"{traces_path}: stands beside no report.json. {advice}")
        return False
    try:
        found = dict(json.loads(report_path.read_text(encoding="utf-8"))["setting"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{report_path}: is not a report of `evaluate`. {advice}") from None
    other = [name for name in setting if found.get(name) != setting[name]]
    if other:
        raise ConfigError(f"{report_path}: was measured with another {', '.join(other)}. {advice}")
    return traces_path.exists()
