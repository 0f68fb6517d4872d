r"""The rewards TRL lacks. Lengths are in tokens and are compared within a prompt's group only.

GRPO centers rewards within a group, so what counts is the order inside it. The default,
`short_correct_reward`, orders a group so for all lengths:

| completion | reward |
| --- | --- |
| right, boxed before `</think>`, shortest of its group's right ones | 1 + weight |
| the same, longest of them | 1 |
| wrong, or no real box before `</think>`, or truncated | 0 |
| the gold cannot be graded | None: TRL leaves the row out |

So a wrong answer never beats a right one, and a group without a right answer gets equal rewards and
hence no gradient. The sum of the paper (arXiv 2507.08267) is `boxed_in_think_reward`,
`paper_cosine_reward` of `training.grpo` and `group_length_reward`; it has neither property.

All rewards have TRL's signature and pickle. `B*G` is prompts times group size.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fastmath_kit.errors import DataError
from fastmath_kit.problems.answers import extract_answer
from fastmath_kit.problems.grading import shared_grader

Messages = list[dict[str, str]]


def accuracy_reward(
    completions: list[Messages], solution: list[str], **kwargs
) -> list[float | None]:
    r"""Rewards a right answer boxed before `</think>`, the point where the submission stops.

    Args:
        completions: One single-message conversation per completion. Length `B*G`.
        solution: Gold answers. Length `B*G`.
        **kwargs: Other dataset columns and trainer state. Unused.

    Returns:
        1.0 or 0.0, and None where the gold cannot be graded. Length `B*G`.

    >>> accuracy_reward([[{"role": "assistant", "content": r"\boxed{7}</think>"}]], solution=["7"])
    [1.0]
    """
    verdicts = _verdicts(completions, solution)
    return [None if verdict is None else float(verdict) for verdict in verdicts]


def boxed_in_think_reward(completions: list[Messages], **kwargs) -> list[float]:
    r"""Rewards a box that holds a real answer before `</think>`.

    An empty box, an echoed instruction, a box after `</think>` and a reasoning block that never
    closes (truncated by the token budget) score 0.0.

    >>> boxed_in_think_reward([[{"role": "assistant", "content": r"\boxed{}</think>"}]])
    [0.0]
    """
    answers = [extract_answer(text, inside="reasoning") for text in _texts(completions)]
    return [float(answer is not None) for answer in answers]


def group_length_reward(
    prompts: list[Messages],
    completions: list[Messages],
    completion_ids: list[list[int]],
    solution: list[str],
    **kwargs,
) -> list[float]:
    """Rewards short completions, each compared with its own prompt's group.

    With `x = 0.5 - (length - shortest) / (longest - shortest)` over the group, a right completion
    gets `x`, a wrong one `min(0, x)`; 0 where all are equally long or the gold cannot be graded.
    Source: Kimi k1.5 (arXiv 2501.12599, section 2.3.3).

    Args:
        prompts: One conversation per completion; those of a group are equal. Length `B*G`.
        completions: One single-message conversation per completion. Length `B*G`.
        completion_ids: Sampled tokens of each completion. Length `B*G`.
        solution: Gold answers. Length `B*G`.
        **kwargs: Other dataset columns and trainer state. Unused.
    """
    verdicts = _verdicts(completions, solution)
    longness = _longness(prompts, completion_ids, [True] * len(prompts))
    rewards = []
    for verdict, share in zip(verdicts, longness, strict=True):
        x = 0.0 if share is None or verdict is None else 0.5 - share
        rewards.append(x if verdict else min(0.0, x))
    return rewards


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortCorrectReward:
    """1 for a right answer boxed before `STOP`, plus up to `weight` for being short; wrong is 0.

    The bonus falls linearly from `weight` for the shortest right completion of the group to 0 for
    the longest. Source: the length reward of Kimi k1.5, applied to right completions only.

    Attributes:
        weight: Largest bonus.
    """

    weight: float = 0.25

    @property
    def __name__(self) -> str:
        """Name under which TRL logs the reward."""
        return "short_correct_reward"

    def __call__(
        self,
        prompts: list[Messages],
        completions: list[Messages],
        completion_ids: list[list[int]],
        solution: list[str],
        **kwargs,
    ) -> list[float | None]:
        """Returns one reward per completion; arguments as of `group_length_reward`."""
        verdicts = _verdicts(completions, solution)
        longness = _longness(prompts, completion_ids, [bool(verdict) for verdict in verdicts])
        rewards: list[float | None] = [None if verdict is None else 0.0 for verdict in verdicts]
        for row, (verdict, share) in enumerate(zip(verdicts, longness, strict=True)):
            if verdict:
                rewards[row] = 1.0 + self.weight * (1.0 - (share or 0.0))
        return rewards


short_correct_reward = ShortCorrectReward()


def _verdicts(completions: list[Messages], solution: list[str]) -> list[bool | None]:
    """Whether each completion is right; None where its gold cannot be graded."""
    verdicts = shared_grader().grade_completions(solution, _texts(completions), inside="reasoning")
    return [verdict.correct for verdict in verdicts]


def _texts(completions: list[Messages]) -> list[str]:
    for row, completion in enumerate(completions):
        well_formed = isinstance(completion, list) and completion
        if not well_formed or not isinstance(completion[0].get("content"), str):
            raise DataError(
                f"row {row}: a completion must be a list of messages with text content, got "
                f"{completion!r}."
            )
    return [completion[0]["content"] for completion in completions]


def _longness(
    prompts: list[Messages], completion_ids: list[list[int]], counted: Sequence[bool]
) -> list[float | None]:
    """Where each length lies between the shortest (0) and the longest (1) counted one of its group.

    None where the completion is not counted or all are equally long. Groups are whole whatever the
    batch: lengths of other ranks join in.
    """
    groups = [str(prompt) for prompt in prompts]
    lengths_tokens = [len(ids) for ids in completion_ids]
    rows = list(zip(groups, lengths_tokens, counted, strict=True))
    by_group = defaultdict(list)
    for group, length_tokens, counts in _of_all_ranks(rows):
        if counts:
            by_group[group].append(length_tokens)
    shares: list[float | None] = []
    for group, length_tokens, counts in rows:
        shortest, longest = min(by_group[group], default=0), max(by_group[group], default=0)
        known = counts and longest > shortest
        shares.append((length_tokens - shortest) / (longest - shortest) if known else None)
    return shares


def _of_all_ranks(rows: list[tuple]) -> list[tuple]:
    """Returns the rows of every rank; all ranks call this together, as TRL calls rewards."""
    import torch.distributed as distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    gathered: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, rows)
    return [row for part in gathered for row in part]
