"""Datasets in the form TRL's trainers take, tokenised once and in one way for every stage.

SFT rows are token ids, not text: the prompt's ids come from `problems.prompts` as they do in GRPO,
evaluation and submission, so no template can drop the reasoning or add a second BOS.
"""

from collections.abc import Iterable, Mapping

from fastmath_kit.errors import DataError
from fastmath_kit.problems.prompts import STOP, completion_ids, prompt_ids, prompt_messages
from fastmath_kit.problems.records import Problem


def sft_dataset(rows: Iterable[Mapping], tokenizer):
    """Returns a `datasets.Dataset` with `input_ids` and `completion_mask`, one row a trace.

    The loss falls on the completion and the end-of-turn token after it, never on the prompt.

    Args:
        rows: Mappings with `problem` (the statement) and `completion` (from after the template's
            generation prompt; it must close its reasoning with `STOP`).
        tokenizer: The model's, with its chat template.

    Raises:
        DataError: a completion never reaches `STOP`; the message names the row.
    """
    from datasets import Dataset

    examples = []
    for number, row in enumerate(rows, start=1):
        if STOP not in row["completion"]:
            raise DataError(
                f"training row {number}: the completion never reaches {STOP!r}, it was truncated. "
                "Leave it out."
            )
        prompt = prompt_ids(tokenizer, row["problem"])
        completion = [*completion_ids(tokenizer, row["completion"]), tokenizer.eos_token_id]
        mask = [0] * len(prompt) + [1] * len(completion)
        examples.append({"input_ids": prompt + completion, "completion_mask": mask})
    if not examples:
        raise DataError("there are no training rows. Give at least one.")
    return Dataset.from_list(examples)


def grpo_dataset(problems: Iterable[Problem]):
    """Returns a `datasets.Dataset` with `prompt` (messages), `solution` and `problem_id`.

    Raises:
        DataError: a problem has no solution to reward.
    """
    from datasets import Dataset

    rows = []
    for problem in problems:
        if problem.solution is None:
            raise DataError(f"problem {problem.id!r} has no answer to reward. Leave it out.")
        prompt = prompt_messages(problem.statement)
        rows.append({"prompt": prompt, "solution": problem.solution, "problem_id": problem.id})
    return Dataset.from_list(rows)
