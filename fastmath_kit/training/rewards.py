"""The rewards TRL lacks. Lengths are in tokens and are compared within a prompt's group only.

GRPO centers rewards within a group, so what counts is the order inside it. Here a wrong answer
never beats a right one, whatever the lengths, and a group without a right answer gets equal rewards
and hence no gradient.
"""

from collections import defaultdict
from dataclasses import dataclass

from fastmath_kit.problems.answers import extract_answer, same_answer
from fastmath_kit.problems.prompts import STOP


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortCorrectReward:
    """1 for a right answer boxed before `STOP`, plus up to `weight` for being short; wrong is 0.

    The bonus falls linearly from `weight` for the shortest right completion of the group to 0 for
    the longest. Source: the length reward of Kimi k1.5 (arXiv 2501.12599, §2.3.3), applied to right
    completions only.

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
        prompts: list[list[dict[str, str]]],
        completions: list[list[dict[str, str]]],
        completion_ids: list[list[int]],
        solution: list[str],
        **kwargs,
    ) -> list[float]:
        """Returns one reward per completion.

        Args:
            prompts: One conversation per completion; those of a group are equal. Length `B*G`.
            completions: One single-message conversation per completion. Length `B*G`.
            completion_ids: Sampled tokens of each completion. Length `B*G`.
            solution: Gold answers. Length `B*G`.
            **kwargs: Other dataset columns and trainer state. Unused.
        """
        correct = [
            _is_correct(message["content"], gold)
            for (message, *_), gold in zip(completions, solution, strict=True)
        ]
        groups = defaultdict(list)
        for index, prompt in enumerate(prompts):
            if correct[index]:
                groups[prompt[-1]["content"]].append(index)
        rewards = [0.0] * len(completions)
        for members in groups.values():
            lengths_tokens = [len(completion_ids[index]) for index in members]
            shortest, spread = min(lengths_tokens), max(lengths_tokens) - min(lengths_tokens)
            for index, length_tokens in zip(members, lengths_tokens, strict=True):
                longness = (length_tokens - shortest) / spread if spread else 0.0
                rewards[index] = 1.0 + self.weight * (1.0 - longness)
        return rewards


short_correct_reward = ShortCorrectReward()


def _is_correct(completion: str, gold: str) -> bool:
    reasoning, stop, _ = completion.partition(STOP)
    return bool(stop) and same_answer(extract_answer(reasoning), gold)
