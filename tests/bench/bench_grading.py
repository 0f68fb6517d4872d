r"""Grading against plain math-verify in one process, in the same run on the same pairs.

Three loads: whole numbers in the forms models write, answers that need algebra (none that the exact
path can read), and a GRPO step of the paper, 128 completions of 64 kB. Each run draws new pairs,
so that no cache helps; medians of the runs. Workers and math-verify are warm. No GPU, no network.

    python tests/bench/bench_grading.py            # table, then one JSON line
    python tests/bench/bench_grading.py | tail -1  # machine-readable
"""

import json
import logging
import os
import random
import statistics
import time
from collections.abc import Callable

from math_verify import parse, verify

from fastmath_kit.problems.exact import exact_value
from fastmath_kit.problems.grading import Grader

RUNS = 5
NUM_INTEGER, NUM_GENERAL, NUM_COMPLETIONS = 400, 120, 128
COMPLETION_CHARS = 64_000
REASONING = (
    r"Then $\frac{a}{b}=\sqrt{2}$, hence \boxed{3} looks right. Wait, let me check $x_{1}$. "
)


def integer_pairs(rng: random.Random) -> list[tuple[str, str]]:
    forms = [
        str,
        lambda n: f"0{n}",
        lambda n: f"{n:,}".replace(",", "{,}"),
        lambda n: rf"{n}\text{{ apples}}",
        lambda n: rf"\frac{{{2 * n}}}{{2}}",
        lambda n: rf"\${n}",
    ]
    numbers = [rng.randrange(10**6) for _ in range(NUM_INTEGER)]
    return [(str(n), rng.choice(forms)(n + rng.choice([0, 0, 1]))) for n in numbers]


def general_pairs(rng: random.Random) -> list[tuple[str, str]]:
    pairs = []
    for index in range(NUM_GENERAL):
        a, b, c = (rng.randint(2, 99) for _ in range(3))
        kinds = [
            (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}"),
            (f"({a},{a + b})", f"({a}, {a + b})"),
            (rf"\{{{a},{b},{c}\}}", rf"\{{{c},{a},{b}\}}"),
            (f"x^2+{a}x+{b}", f"{b}+x({a}+x)"),
            (rf"\frac{{{a}\pi}}{{{b}}}", rf"{a}\pi/{b}"),
            (rf"[{a},\infty)", rf"x \ge {a}"),
            (rf"{a}+{b}\sqrt{{{c}}}", rf"{a}-{b}\sqrt{{{c}}}"),
            (f"y={a}x+{b}", f"y={b}+{a}x"),
        ]
        pairs.append(kinds[index % len(kinds)])
    assert all(exact_value(gold) is None for gold, _ in pairs)
    return pairs


def plain(pairs: list[tuple[str, str]]) -> list[bool]:
    """What a reward function does today: parse both boxes, verify, gold first."""
    return [verify(parse(rf"\boxed{{{g}}}"), parse(rf"\boxed{{{a}}}")) for g, a in pairs]


def seconds(function: Callable, *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def compare(grader: Grader, draw: Callable) -> dict[str, float]:
    """Returns pairs a second of both and their ratio, medians over the runs."""
    plain_s, ours_s = [], []
    for seed in range(RUNS):
        pairs = draw(random.Random(seed))
        plain_s.append(seconds(plain, pairs))
        ours_s.append(seconds(grader.grade_many, pairs))
    ratios = [p / o for p, o in zip(plain_s, ours_s, strict=True)]
    return {
        "plain_pairs_per_s": round(len(pairs) / statistics.median(plain_s), 1),
        "ours_pairs_per_s": round(len(pairs) / statistics.median(ours_s), 1),
        "ratio": round(statistics.median(ratios), 2),
    }


def grpo_step(grader: Grader) -> float:
    """Returns the median seconds for 16 prompts of 8 completions, half of the golds whole."""
    filler = REASONING * (COMPLETION_CHARS // len(REASONING))
    steps_s = []
    for seed in range(100, 100 + RUNS):
        rng = random.Random(seed)
        chosen = [*rng.sample(integer_pairs(rng), 8), *general_pairs(rng)[:8]]
        pairs = [pair for pair in chosen for _ in range(NUM_COMPLETIONS // len(chosen))]
        answers = [answer if rng.random() < 0.5 else f"{answer}+1" for _, answer in pairs]
        completions = [rf"{filler}\boxed{{{answer}}}</think>" for answer in answers]
        golds = [gold for gold, _ in pairs]
        steps_s.append(seconds(grader.grade_completions, golds, completions, "reasoning"))
    return round(statistics.median(steps_s), 3)


def main() -> None:
    logging.disable(logging.CRITICAL)
    with Grader() as grader:
        warm_up = general_pairs(random.Random(-1))
        plain(warm_up[:16])
        grader.grade_many(warm_up)  # starts the workers
        rows = {
            "integer": compare(grader, integer_pairs),
            "general": compare(grader, general_pairs),
            "grpo_step_128x64kB_s": grpo_step(grader),
        }
    print(f"{'pairs':<10} {'plain/s':>10} {'ours/s':>10} {'ratio':>7}   (medians of {RUNS} runs)")
    for name in ("integer", "general"):
        row = rows[name]
        plain_rate, our_rate = row["plain_pairs_per_s"], row["ours_pairs_per_s"]
        print(f"{name:<10} {plain_rate:>10.1f} {our_rate:>10.1f} {row['ratio']:>7.2f}")
    print(f"128 completions of 64 kB: {rows['grpo_step_128x64kB_s']:.3f} s")
    print(json.dumps(rows | {"cpus": os.cpu_count()}))


if __name__ == "__main__":
    main()
