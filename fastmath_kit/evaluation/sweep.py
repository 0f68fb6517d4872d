"""Scores traces: one row a model, a budget sweep from one run, two models paired by problem.

`evaluate` samples and scores a model; `summarize` and `compare` are pure and take any traces:

    stage = evaluate("runs/grpo/merged", problems, k=8, budgets_tokens=(32, 64), out="runs/eval",
                     sampling=Sampling(max_tokens=128))
    compare(read_traces("runs/sft/traces.parquet"), read_traces("runs/eval/traces.parquet"))

Rates, errors and changes are fractions: 0.94, -0.35. Tokens count completions without the prompt.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.evaluation.metrics import (
    answer_matrix,
    at_budget,
    avg_at_k,
    correct_matrix,
    maj_at_k,
    paired_bootstrap,
    pass_at_k,
    standard_error,
    token_matrix,
    traces_by_problem,
)
from fastmath_kit.evaluation.report import write_json
from fastmath_kit.evaluation.setting import is_finished, setting_of
from fastmath_kit.evaluation.unfinished import Unfinished
from fastmath_kit.inference.protocol import Engine, Sampling
from fastmath_kit.problems.records import Problem, Trace, read_traces, write_traces

logger = logging.getLogger(__name__)


def summarize(
    name: str, traces: Sequence[Trace], budgets_tokens: Sequence[int] = ()
) -> dict[str, Any]:
    """Returns the row of one model in a report, JSON-ready.

    Args:
        name: Of the row, such as `sft-10`.
        traces: k graded traces of each problem.
        budgets_tokens: Completion tokens a trace may have in each row of `budgets`.

    Returns:
        `name`, `avg_at_k`, `k`, `standard_error` (None for one problem), `maj_at_k`, `pass_at_k`
        (at the same k: any sample right), `mean_tokens`, `num_problems`, `truncated` (share of
        traces cut by the token limit, None where no trace says how it finished) and `budgets`.

    Raises:
        DataError: see `correct_matrix`; or a budget is larger than the limit of the traces.
    """
    correct_P_K, tokens_P_K = correct_matrix(traces), token_matrix(traces)
    finish_reasons = [trace.finish_reason for trace in traces]
    num_truncated = finish_reasons.count("length")
    for budget_tokens in budgets_tokens:
        if budget_tokens < 1 or (num_truncated and budget_tokens > tokens_P_K.max()):
            raise DataError(
                f"{name}: cannot score a budget of {budget_tokens} tokens: the traces were sampled "
                f"with a limit of {tokens_P_K.max()} and some were cut there. "
                "Choose budgets from 1 to that, or sample again with a larger max_tokens."
            )
    num_problems, k = correct_P_K.shape
    return {
        "name": name,
        "avg_at_k": avg_at_k(correct_P_K),
        "k": k,
        "standard_error": standard_error(correct_P_K),
        "maj_at_k": maj_at_k(answer_matrix(traces), correct_P_K),
        "pass_at_k": pass_at_k(correct_P_K, k),
        "mean_tokens": float(tokens_P_K.mean()),
        "num_problems": num_problems,
        "truncated": num_truncated / len(traces) if any(finish_reasons) else None,
        "budgets": [_at(budget, correct_P_K, tokens_P_K) for budget in sorted(budgets_tokens)],
    }


def _at(budget_tokens: int, correct_P_K: np.ndarray, tokens_P_K: np.ndarray) -> dict[str, Any]:
    correct_P_K, tokens_P_K = at_budget(correct_P_K, tokens_P_K, budget_tokens)
    return {
        "budget_tokens": int(budget_tokens),
        "avg_at_k": avg_at_k(correct_P_K),
        "standard_error": standard_error(correct_P_K),
        "mean_tokens": float(tokens_P_K.mean()),
    }


def compare(before_traces: Sequence[Trace], after_traces: Sequence[Trace]) -> dict[str, Any]:
    """Returns what changed from one model to another on the same problems, paired by problem.

    Returns:
        `token_change`, mean tokens after over before, minus 1; `accuracy_change`, after minus
        before; `accuracy_change_ci95`, its `[low, high]` by paired bootstrap over problems.

    Raises:
        DataError: the two do not cover the same problems, or see `correct_matrix`.
    """
    before_ids, after_ids = traces_by_problem(before_traces), traces_by_problem(after_traces)
    if before_ids.keys() != after_ids.keys():
        only = sorted(before_ids.keys() ^ after_ids.keys())
        raise DataError(
            f"{len(only)} problems are on one side only, such as {only[0]!r}. "
            "Evaluate both models on the same problem file."
        )
    change, low, high = paired_bootstrap(
        correct_matrix(before_traces).mean(axis=1), correct_matrix(after_traces).mean(axis=1)
    )
    token_ratio = token_matrix(after_traces).mean() / token_matrix(before_traces).mean()
    return {
        "token_change": float(token_ratio - 1),
        "accuracy_change": change,
        "accuracy_change_ci95": [low, high],
    }


def evaluate(
    model: str | Path,
    problems: Sequence[Problem],
    *,
    k: int,
    budgets_tokens: Sequence[int],
    out: str | Path,
    sampling: Sampling,
    endpoints: Sequence[str] = (),
    served_model: str | None = None,
    max_concurrent: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Samples k completions of each problem, scores them and writes both into `out`.

    `out` gets `traces.parquet` and `report.json`, whose `setting` says what was measured. Where a
    finished run of the same setting stands, its traces are scored again, for these budgets, and
    nothing is sampled; one that was stopped goes on from what `out/unfinished` kept, about a
    minute old if it was killed; a run of another setting is never overwritten.

    Args:
        model: Folder of a model vLLM can load; with `endpoints`, its tokenizer is enough.
        problems: All with a gold answer.
        k: Completions a problem.
        budgets_tokens: Token budgets to score from the one run, at most `sampling.max_tokens`.
        out: Folder for the two files.
        sampling: How completions are drawn.
        endpoints: URLs of servers of the model that sample; empty runs vLLM in this process.
        served_model: The model's name there; see `EndpointEngine`.
        max_concurrent: Most completions at once, over all servers.
        on_progress: Called with `(done, total)` completions.

    Returns:
        What `report.json` holds: `summarize` named after the model's folder, plus `setting`.

    Raises:
        ConfigError: k or a budget is out of range, or `out` holds another run.
        DataError: a problem has no gold answer, or a file cannot be written.
        CheckpointError: `model` is no model.
        EngineError: the engine did not start or died.
    """
    from fastmath_kit.inference.solve import sample_traces

    _check_request(problems, k, budgets_tokens, sampling)
    report_path, traces_path = Path(out) / "report.json", Path(out) / "traces.parquet"
    setting = setting_of(model, problems, k, sampling, endpoints, served_model)
    if is_finished(report_path, traces_path, setting):
        logger.info("%s: same model and setting, scoring its traces again", traces_path)
        return _score(model, read_traces(traces_path), budgets_tokens, setting, report_path)
    sample = partial(sample_traces, problems, k=k, sampling=sampling, model=str(model))
    with Unfinished(Path(out) / "unfinished", setting) as kept:
        with _engine(model, endpoints, served_model, max_concurrent) as engine:
            traces = sample(engine, done=kept.traces, on_traces=kept.add, on_progress=on_progress)
        # The report first: traces beside no report are somebody else's.
        report = _score(model, traces, budgets_tokens, setting, report_path)
        write_traces(traces, traces_path)
    return report


def _score(
    model: str | Path,
    traces: Sequence[Trace],
    budgets_tokens: Sequence[int],
    setting: dict[str, Any],
    report_path: Path,
) -> dict[str, Any]:
    report = {"setting": setting} | summarize(Path(model).name, traces, budgets_tokens)
    write_json(report, report_path)
    return report


def _engine(
    model: str | Path, endpoints: Sequence[str], served_model: str | None, max_concurrent: int
) -> Engine:
    from fastmath_kit.inference.endpoint import EndpointEngine
    from fastmath_kit.inference.engine import VLLMEngine

    if not endpoints:
        return VLLMEngine(str(model), in_process=True)
    return EndpointEngine(
        endpoints, tokenizer=model, model=served_model, max_concurrent=max_concurrent
    )


def _check_request(
    problems: Sequence[Problem], k: int, budgets_tokens: Sequence[int], sampling: Sampling
) -> None:
    if k < 1:
        raise ConfigError(f"k is the completions a problem, at least 1, got {k}.")
    for budget_tokens in budgets_tokens:
        if not 1 <= budget_tokens <= sampling.max_tokens:
            raise ConfigError(
                f"budgets are scored from one run and must be in 1..{sampling.max_tokens}, its "
                f"max_tokens, got {budget_tokens}. Lower the budget or raise max_tokens."
            )
    if not problems:
        raise DataError("there are no problems to evaluate. Give a problem file with rows.")
    missing = [problem.id for problem in problems if problem.solution is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(problems)} problems have no gold answer, first {missing[0]!r}."
            " Fill in the problem file's column `answer`, or leave these problems out."
        )
