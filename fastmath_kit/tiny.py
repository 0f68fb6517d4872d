r"""The miniature: problems, a teacher, a tokenizer and a model that trains on a CPU in minutes.

No download and no GPU: a seeded generator of short arithmetic problems in the competition's LaTeX,
teacher traces with correct steps, and a Qwen2 model of random weights with a real Qwen2 tokenizer.
Everything downstream (SFT, GRPO, quantization, vLLM, the submission) is the real models' code:

    train, held_out = make_split(num_train=4_000, num_held_out=200, seed=0)
    model_dir = write_model("runs/demo/base", seed=0)

Held-out statements are new compositions of facts (`7-2=5`) seen in training: a fact seen nowhere
cannot be inferred by a model this small. The miniature shows that the recipe runs and what it does;
it says nothing about large models.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastmath_kit.problems.prompts import STOP, SYSTEM_PROMPT
from fastmath_kit.problems.records import Problem

# The three problems of AIMO 3's public test file. They are never trained on.
TOY_PROBLEMS = (
    Problem(id="toy-0", statement="What is $1-1$?", solution="0"),
    Problem(id="toy-1", statement=r"What is $0\times10$?", solution="0"),
    Problem(id="toy-2", statement="Solve $4+x=4$ for $x$.", solution="0"),
)
RECHECK_PROBABILITY = 0.6  # of a teacher's step: needless, so that GRPO has something to shorten
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
_MODULI = (3, 5, 7)
_NUM_MERGED_TOKENS = 384  # at most: the corpus runs out of merges earlier
_MAX_POSITIONS = 512  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A problem with the steps that solve it, each a true equation such as `7-2=5`."""

    problem: Problem
    steps: tuple[str, ...]


def _subtraction(rng: random.Random) -> tuple[str, list[str], int]:
    a = rng.randint(0, 10)
    b = rng.randint(0, a)
    return f"What is ${a}-{b}$?", [f"{a}-{b}={a - b}"], a - b


def _product(rng: random.Random) -> tuple[str, list[str], int]:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    return rf"What is ${a}\times{b}$?", [rf"{a}\times{b}={a * b}"], a * b


def _equation(rng: random.Random) -> tuple[str, list[str], int]:
    b = rng.randint(0, 10)
    a = rng.randint(0, b)
    return f"Solve ${a}+x={b}$ for $x$.", [f"{b}-{a}={b - a}"], b - a


def _modular(rng: random.Random) -> tuple[str, list[str], int]:
    total, c, m = rng.randint(0, 10), rng.randint(0, 10), rng.choice(_MODULI)
    a = rng.randint(0, total)
    b = total - a
    product = total * c
    steps = [
        f"{a}+{b}={total}",
        rf"{total}\times{c}={product}",
        rf"{product}\bmod{m}={product % m}",
    ]
    return rf"What is $({a}+{b})\times{c}\bmod{m}$?", steps, product % m


def _chain(rng: random.Random) -> tuple[str, list[str], int]:
    r"""A chain `((a+b)-c)\times d`, half of the time with `\bmod m`."""
    total, d = rng.randint(0, 10), rng.randint(0, 10)
    a, c = rng.randint(0, total), rng.randint(0, total)
    b = total - a
    difference = total - c
    product = difference * d
    steps = [f"{a}+{b}={total}", f"{total}-{c}={difference}", rf"{difference}\times{d}={product}"]
    expression, answer = rf"(({a}+{b})-{c})\times{d}", product
    if rng.random() < 0.5:
        m = rng.choice(_MODULI)
        answer = product % m
        steps.append(rf"{product}\bmod{m}={answer}")
        expression += rf"\bmod{m}"
    return f"What is ${expression}$?", steps, answer


_FAMILIES: tuple[tuple[Callable[[random.Random], tuple[str, list[str], int]], int], ...] = (
    (_subtraction, 1),
    (_product, 1),
    (_equation, 1),
    (_modular, 4),
    (_chain, 5),
)


def make_lessons(num: int, *, seed: int, exclude: frozenset[str] = frozenset()) -> list[Lesson]:
    """Returns `num` lessons whose statements are not in `exclude`; statements may repeat."""
    rng = random.Random(seed)
    families, weights = zip(*_FAMILIES, strict=True)
    lessons: list[Lesson] = []
    while len(lessons) < num:
        statement, steps, answer = rng.choices(families, weights)[0](rng)
        if statement not in exclude:
            problem = Problem(id=f"m{len(lessons):05d}", statement=statement, solution=str(answer))
            lessons.append(Lesson(problem=problem, steps=tuple(steps)))
    return lessons


def make_split(
    *, num_train: int, num_held_out: int, seed: int
) -> tuple[list[Lesson], list[Problem]]:
    """Returns training lessons and held-out problems that share no statement.

    Held-out statements are distinct, and the three toy problems are in neither set.
    """
    toys = frozenset(problem.statement for problem in TOY_PROBLEMS)
    held_out: dict[str, Problem] = {}
    for lesson in make_lessons(20 * num_held_out, seed=seed, exclude=toys):
        held_out.setdefault(lesson.problem.statement, lesson.problem)
        if len(held_out) == num_held_out:
            break
    train = make_lessons(num_train, seed=seed + 1, exclude=toys | frozenset(held_out))
    return train, list(held_out.values())


def teacher_completion(lesson: Lesson, rng: random.Random) -> str:
    """Returns a correct trace: every step, some of them needlessly re-checked, and the box."""
    lines = []
    for step in lesson.steps:
        lines.append(f"${step}$\n")
        if rng.random() < RECHECK_PROBABILITY:
            lines.append(f"Wait, let me check: ${step}$\n")
    return "".join(lines) + rf"\boxed{{{lesson.problem.solution}}}" + "\n" + STOP


def make_tokenizer():
    """Returns a Qwen2 tokenizer: the byte alphabet and merges trained on the generator's text.

    A real `Qwen2Tokenizer`, because `AutoTokenizer` loads whatever stands beside a Qwen2 model as
    one; digits stay single tokens.
    """
    import json

    from tokenizers import AddedToken, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    rng = random.Random(0)
    corpus = [SYSTEM_PROMPT, "system\n", "user\n", "assistant\n", "\n"] * 50
    for lesson in make_lessons(500, seed=0):
        corpus += [lesson.problem.statement, teacher_completion(lesson, rng).removesuffix(STOP)]
    trainer = trainers.BpeTrainer(
        vocab_size=_NUM_MERGED_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    blank = Qwen2Tokenizer()._tokenizer  # Qwen2's own pre-tokenizer, so that the merges fit it
    blank.train_from_iterator(corpus, trainer)
    learned = json.loads(blank.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=_MAX_POSITIONS,
    )
    # As in Qwen3 and R1: one token each, but text that decoding keeps.
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken(STOP, special=False)])
    return tokenizer


def write_model(out: str | Path, *, seed: int) -> Path:
    """Writes a Qwen2 model of random weights with its tokenizer; 342,016 parameters.

    Returns:
        `out`, a folder that transformers, TRL and vLLM load like any model.
    """
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,  # head dimension 32, the smallest that vLLM's CPU attention takes
        num_key_value_heads=2,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return Path(out)
