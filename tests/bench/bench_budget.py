"""Measures the budget policy by replay: against every public rule, across models, and for lateness.

    python tests/bench/bench_budget.py                       # synthetic traces, some minutes
    python tests/bench/bench_budget.py --traces FILE --case high:1.6:h100 --case low:5.5:l4x4

A case is `MODEL:LENGTH_SCALE:HARDWARE`, the model being a value of the trace file's column `model`.
For each case the policy is fitted on half of the problems and replayed on the other half, over
several splits. `transfer` was fitted on the first case with another model, its lengths rescaled by
that case, on the same hardware; `fitted on the tested` on the very problems it is tested on: what
is lost by not knowing them. Errors are over splits, which share some problems with each other:
they say how much the splits matter, not what other problems would. Prints tables and, last, one
JSON line.
"""

import argparse
import json
import logging
import math
import random
import time
from collections import defaultdict
from dataclasses import replace
from functools import partial

from fastmath_kit.budget.fitted import FittedPolicy
from fastmath_kit.budget.fitting import fit_policy
from fastmath_kit.budget.policy import RunState
from fastmath_kit.budget.recorded import draw_run, halves, recorded_problems
from fastmath_kit.budget.replay import play_run
from fastmath_kit.budget.scoring import (
    Tally,
    compare,
    comparison_table,
    is_late,
    setting_row,
)
from fastmath_kit.budget.throughput import read_hardware
from fastmath_kit.budget.weather import Weather
from fastmath_kit.problems.records import Trace, read_traces

SECONDS = (60.0, 100.0, 150.0, 220.0, 350.0, 500.0)
NUM_PROBLEMS = 50


def main() -> None:
    args = arguments()
    traces = read_traces(args.traces) if args.traces else synthetic_traces()
    cases = [case.split(":") for case in args.case or ["long:1:h100", "short:1:l4x4"]]
    pools = [
        recorded_problems([t for t in traces if t.model == model], length_scale=float(scale))
        for model, scale, _ in cases
    ]
    result: dict = {"cases": []}
    for place, (model, scale, hardware) in enumerate(cases):
        others = [pool for pool, case in zip(pools, cases, strict=True) if case[0] != model]
        rows, violations = held_out(pools[place], (others or pools)[0], hardware, args)
        print(f"\n{model} x {scale} on {hardware}, {args.splits} splits x {args.runs} runs")
        print(comparison_table(rows))
        print(details(rows), flush=True)
        result["cases"].append(
            {
                "model": model,
                "hardware": hardware,
                "violations": violations,
                "settings": brief(rows),
            }
        )
    policy = fit_policy(pools[0], read_hardware(cases[0][2]), max_tokens=longest(pools[0]))
    result["decision_ms"] = decision_ms(policy)
    result["run_ms"] = run_ms(policy, pools[0])
    result["hostile"] = hostile(policy, pools[0], args.hostile_runs)
    print(f"a decision {result['decision_ms']:.3f} ms, a run {result['run_ms']:.1f} ms")
    print("hostile runs:", result["hostile"])
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", help="trace file; synthetic traces without one")
    parser.add_argument("--case", action="append", help="MODEL:LENGTH_SCALE:HARDWARE, repeatable")
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--runs", type=int, default=100, help="runs of each split and setting")
    parser.add_argument("--hostile-runs", type=int, default=10_000)
    parser.add_argument("--first-split", type=int, default=0, help="seed of the first split")
    return parser.parse_args()


def synthetic_traces(num_problems: int = 30, num_samples: int = 40) -> list[Trace]:
    """Returns traces of two made-up models; harder problems are longer and less often right."""
    rng, traces = random.Random(1), []
    for problem in range(num_problems):
        hardness = rng.random()
        for model, tokens, skill in (("long", 4_000, 1.15), ("short", 3_000, 0.95)):
            center = tokens * 8**hardness
            chance = min(max(skill - hardness**2, 0.02), 0.99)
            for sample in range(num_samples):
                answer = 1 if rng.random() < chance else rng.choice((2, 2, 3, 4, 5, 6))
                traces.append(
                    Trace(
                        problem_id=f"p{problem}",
                        sample=sample,
                        completion_tokens=int(center * rng.lognormvariate(0, 0.45)),
                        answer=answer,
                        solution="1",
                        model=model,
                    )
                )
    return traces


def held_out(pool, other_pool, hardware: str, args) -> tuple[list[dict], int]:
    """Returns rows like `compare`'s over all splits, with the policies fitted on other problems."""
    model = read_hardware(hardware)
    max_tokens = longest([*pool, *other_pool])
    fit = partial(fit_policy, model=model, max_tokens=max_tokens)
    tallies: dict = defaultdict(lambda: defaultdict(Tally))
    for split in range(args.first_split, args.first_split + args.splits):
        fitting, tested = halves(pool, random.Random(1_000 + split))
        half = {problem.problem_id for problem in fitting}
        policies = {
            "fitted": fit(fitting),
            "transfer": fit([p for p in other_pool if p.problem_id in half]),
            "fitted on the tested": fit(tested),
        }
        rows = compare(
            tested,
            policies,
            model=model,
            seconds_per_problem=SECONDS,
            num_runs=args.runs,
            max_tokens=max_tokens,
            seed=split,
        )
        for row in rows:
            for policy in row["policies"]:
                tally = tallies[row["seconds_per_problem"]][policy["name"]]
                tally.solved += policy["solved"]
                tally.time_used += [policy["time_used"]] * (policy["time_used"] is not None)
                tally.violations += policy["violations"]
    public = [policy["name"] for policy in rows[0]["policies"] if policy["is_public"]]
    rows = [
        setting_row(seconds, by_name, public, runs_per_split=args.runs)
        for seconds, by_name in tallies.items()
    ]
    return rows, sum(policy["violations"] for row in rows for policy in row["policies"])


def longest(pool) -> int:
    """Returns a limit that cuts no trace, as the public rules have it."""
    return math.ceil(max(max(problem.tokens) for problem in pool))


def details(rows: list[dict]) -> str:
    """Returns our policies' differences, both errors and the share of the oracle's lead closed."""
    lines = []
    for row in rows:
        for policy in row["policies"]:
            if policy["is_public"] or policy["is_reference"]:
                continue
            gap, error = policy["gap_closed"], policy["split_error"]
            lines.append(
                f"{row['seconds_per_problem']:4g} s  {policy['name']:20}  "
                f"{policy['difference']:+.2f} over {row['best_public']}, "
                f"± {policy['standard_error'] or 0:.2f} by run, ± {error or 0:.2f} by split; "
                f"of the oracle's lead {'-' if gap is None else format(gap, '.0%')}; splits "
                + " ".join(f"{difference:+.1f}" for difference in policy["split_differences"])
            )
    return "\n".join(lines)


def brief(rows: list[dict]) -> list[dict]:
    """Returns the rows without each run's figure, and of the public rules only the best."""
    return [
        {
            "seconds_per_problem": row["seconds_per_problem"],
            "policies": [
                {key: value for key, value in policy.items() if key != "solved"}
                for policy in row["policies"]
                if not policy["is_public"] or policy["name"] == row["best_public"]
            ],
        }
        for row in rows
    ]


def decision_ms(policy: FittedPolicy, num: int = 2_000) -> float:
    states = [
        RunState(elapsed_s=i, deadline_s=17_400, num_done=i % 50, num_problems=50)
        for i in range(num)
    ]
    start_s = time.perf_counter()
    for state in states:
        policy(state)
    return (time.perf_counter() - start_s) / num * 1e3


def run_ms(policy: FittedPolicy, pool, num: int = 50) -> float:
    draws = [draw_run(pool, NUM_PROBLEMS, random.Random(seed)) for seed in range(num)]
    start_s = time.perf_counter()
    for draw in draws:
        play_run(draw, policy, model=policy.model, deadline_s=7_500, num_problems=NUM_PROBLEMS)
    return (time.perf_counter() - start_s) / num * 1e3


def hostile(policy: FittedPolicy, pool, num_runs: int) -> dict:
    """Returns what became of runs in which everything goes wrong, a reserve of 60 s kept."""
    late = answered = problems = 0
    for seed in range(num_runs):
        rng = random.Random(f"hostile/{seed}")
        deadline_s = NUM_PROBLEMS * rng.choice(SECONDS) + 60.0
        outcomes = play_run(
            hostile_draws(pool, rng),
            policy,
            model=policy.model,
            deadline_s=deadline_s - 60.0,
            num_problems=rng.choice((NUM_PROBLEMS, NUM_PROBLEMS, rng.randint(40, 60))),
            weather=hostile_weather(rng, deadline_s),
        )
        late += is_late(outcomes, deadline_s)
        answered += sum(outcome.answered for outcome in outcomes)
        problems += len(outcomes)
    return {"runs": num_runs, "late": late, "answered": answered / problems, "problems": problems}


def hostile_draws(pool, rng: random.Random) -> list:
    """Returns 50 problems, in every fourth run one more; in every tenth nothing ever answers."""
    draws = draw_run(pool, NUM_PROBLEMS + (rng.random() < 0.25), rng)
    if rng.random() < 0.1:
        draws = [replace(draw, answers=(None,) * len(draw.tokens)) for draw in draws]
    return draws


def hostile_weather(rng: random.Random, deadline_s: float) -> Weather:
    starts = sorted(rng.uniform(0, deadline_s) for _ in range(rng.randrange(4)))
    ends = [*starts[1:], deadline_s]
    stalls = [(a, min(rng.uniform(5, 600), b - a)) for a, b in zip(starts, ends, strict=False)]
    return Weather(
        slowdown=3 ** rng.uniform(-1, 1),
        stalls=tuple(stalls),
        hangs_at_s=rng.uniform(0, deadline_s) if rng.random() < 0.2 else float("inf"),
        late_s=rng.choice((0.0, 0.1, 5.0)),
    )


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
