"""Does knowing a problem's length beforehand help the budget policy? Measured by replay.

    python tests/bench/bench_length.py --traces FILE --case high:1.6:h100 --case low:5.5:l4x4
    python tests/bench/bench_length.py --traces T.parquet --problems P.csv --case :200:h100

A case is `MODEL:LENGTH_SCALE:HARDWARE`; an empty model takes all traces. In each split the policy
and every predictor are fitted on one half of the problems, and runs of 50 problems of the other
half are replayed with and without the prior, the same runs for all. Priors, each the logarithm of a
problem's length relative to the mean of the fitting half:

  oracle     the mean of the problem's own traces: no predictor can know more
  r=0.7      the same with noise, as a predictor with this correlation would know it
  features   the regression on text features (with --problems)
  encoder    the encoder of the preset length_tiny (with --encoder MODEL, whose tokenizer it takes)

Two ways to use one: `thirds` fits a menu for each third of the fitting half by length and lets the
price of a second decide what each gets; `stretch` multiplies the policy's waiting times and the
problem's share of the time by powers of the length that were best on the fitting half. Prints a
table and, last, one JSON line: the mean difference in problems solved of 50, and its standard error
over splits.
"""

import argparse
import itertools
import json
import logging
import math
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastmath_kit.budget.fitted import FittedPolicy
from fastmath_kit.budget.fitting import fit_policy
from fastmath_kit.budget.policy import Decision, ProblemState, Rule, RunState
from fastmath_kit.budget.recorded import Recorded, draw_run, recorded_problems
from fastmath_kit.budget.replay import play_run
from fastmath_kit.budget.throughput import StepTime, read_hardware
from fastmath_kit.problems.records import read_problems, read_traces
from fastmath_kit.training.length_features import fit_features
from fastmath_kit.training.length_labels import LengthLabel, length_labels

NUM_PROBLEMS = 50
POWERS = ((0.0, 0.0), (0.0, -0.25), (-0.25, -0.25), (-0.5, -0.5), (0.0, 0.25), (0.25, 0.0))
Prior = Mapping[str, float]  # problem id -> log of its length relative to the mean
Policy = Callable[[RunState], Rule]


@dataclass(frozen=True, slots=True, kw_only=True)
class StretchedStop:
    """A stop rule that sees time and tokens `factor` times smaller than they are."""

    stop: Callable[[ProblemState], Decision]
    factor: float

    def __call__(self, state: ProblemState) -> Decision:
        tokens = tuple(int(num / self.factor) for num in state.live_tokens)
        seen = replace(state, elapsed_s=state.elapsed_s / self.factor, live_tokens=tokens)
        decision = self.stop(seen)
        return replace(decision, review_s=decision.review_s * self.factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorPolicy:
    """A policy told how long each problem of a run will be.

    Attributes:
        policy: The policy.
        logs: Prior of each problem in the order of the run.
        waits: Waiting times are multiplied by the length to this power.
        share: And the time that is left, as the policy sees it, by the length to this one.
    """

    policy: Policy
    logs: Sequence[float]
    waits: float
    share: float

    def __call__(self, state: RunState) -> Rule:
        length = math.exp(self.logs[state.num_done])
        left_s = max(state.deadline_s - state.elapsed_s, 1e-3)
        rule = self.policy(replace(state, deadline_s=state.elapsed_s + left_s * length**self.share))
        factor = length**self.waits
        return replace(
            rule,
            timeout_s=min(rule.timeout_s * factor, left_s),
            stop=rule.stop and StretchedStop(stop=rule.stop, factor=factor),
            expected_s=None if rule.expected_s is None else rule.expected_s * factor,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ThirdsPolicy:
    """A policy for each third of the problems by length, all at the same price of a second.

    Attributes:
        policies: Of the short, the middling and the long ones.
        thirds: Of each problem of a run, in its order: 0, 1 or 2.
    """

    policies: Sequence[FittedPolicy]
    thirds: Sequence[int]

    def __call__(self, state: RunState) -> Rule:
        third = self.thirds[state.num_done]
        policy = self.policies[third]
        num_left = max(state.num_problems - state.num_done, 1)
        overhead_s = policy.model.overhead_s * (num_left - 1) / num_left
        mean_s = max((state.deadline_s - state.elapsed_s) / num_left - overhead_s, 0.1)
        share_s = max(self._shares_s(mean_s)[third], 0.1)
        return policy(
            replace(state, deadline_s=state.elapsed_s + (share_s + overhead_s) * num_left)
        )

    def _shares_s(self, mean_s: float) -> list[float]:
        """Returns what each third gets where a problem gets `mean_s` on average: dearest first."""
        segments = []
        for third, policy in enumerate(self.policies):
            seconds, solved, slope = 0.0, 0.0, math.inf
            for rule in policy.menu:
                length_s = rule.seconds - seconds
                slope = min((rule.solved - solved) / length_s, slope)  # never before the one below
                segments.append((slope, third, length_s))
                seconds, solved = rule.seconds, rule.solved
        left_s = mean_s * len(self.policies)
        shares_s = [0.0] * len(self.policies)
        for _, third, length_s in sorted(segments, reverse=True):
            given_s = min(length_s, left_s)
            shares_s[third] += given_s
            left_s -= given_s
        return [share_s + left_s / len(shares_s) for share_s in shares_s]


def main() -> None:
    args = arguments()
    traces = read_traces(args.traces)
    problems = read_problems(args.problems) if args.problems else []
    result = {}
    for case in args.case:
        model_name, scale, hardware = case.split(":")
        chosen = [t for t in traces if not model_name or t.model == model_name]
        pool = recorded_problems(chosen, length_scale=float(scale))
        labels = length_labels(chosen, problems) if problems else []
        differences, correlations = measure(pool, labels, read_hardware(hardware), args)
        print(f"\n{case}: {args.splits} splits x {args.runs} runs, solved of {NUM_PROBLEMS}")
        print_table(differences, correlations)
        result[case] = {"differences": brief(differences), "correlations": correlations}
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", required=True, help="trace file with solutions or grades")
    parser.add_argument("--problems", help="CSV with the statements, for the text predictors")
    parser.add_argument(
        "--encoder", help="model folder: also train the encoder, with its tokenizer"
    )
    parser.add_argument(
        "--case", action="append", required=True, help="MODEL:LENGTH_SCALE:HARDWARE"
    )
    parser.add_argument("--seconds", default="60,100,150,220,350", help="seconds a problem")
    parser.add_argument("--correlations", default="0.7", help="of the noisy priors")
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--runs", type=int, default=50, help="runs of each split and setting")
    parser.add_argument("--problems-a-half", type=int, default=60, help="at most; the rest is left")
    return parser.parse_args()


def measure(
    pool: Sequence[Recorded], labels: Sequence[LengthLabel], model: StepTime, args
) -> tuple[dict, dict[str, float]]:
    """Returns differences by setting, prior and way, `[splits][runs]`; and mean correlations."""
    truth = {p.problem_id: statistics.fmean(map(math.log, p.tokens)) for p in pool}
    differences: dict = defaultdict(list)
    correlations = defaultdict(list)
    for split in range(args.splits):
        ids = random.Random(1_000 + split).sample(sorted(truth), len(truth))
        half = min(len(ids) // 2, args.problems_a_half)
        fitting, held_out = set(ids[:half]), set(ids[half : 2 * half])
        fit_pool = [p for p in pool if p.problem_id in fitting]
        test_pool = [p for p in pool if p.problem_id in held_out]
        priors = make_priors(truth, fitting, labels, split, args)
        longest = math.ceil(max(max(problem.tokens) for problem in pool))  # no trace is cut
        policy = fit_policy(fit_pool, model, max_tokens=longest)
        for name, prior in priors.items():
            both = [(prior[i], truth[i]) for i in held_out]
            correlations[name].append(float(np.corrcoef(np.array(both).T)[0, 1]))
        thirds = {name: fit_thirds(fit_pool, prior, policy) for name, prior in priors.items()}
        for seconds in map(float, args.seconds.split(",")):
            powers = {
                name: best_powers(fit_pool, policy, prior, seconds, split)
                for name, prior in priors.items()
            }
            rows = defaultdict(list)
            for run in range(args.runs):
                draws = draw_run(test_pool, NUM_PROBLEMS, random.Random(f"{split}/{run}"))
                rows["none", "none"].append(solved(draws, policy, model, seconds))
                for name, prior in priors.items():
                    logs = [prior[draw.problem_id] for draw in draws]
                    waits, share = powers[name]
                    ways = {
                        "stretch": PriorPolicy(policy=policy, logs=logs, waits=waits, share=share),
                        "thirds": with_thirds(*thirds[name], logs),
                    }
                    for way, ours in ways.items():
                        rows[name, way].append(solved(draws, ours, model, seconds))
            for (name, way), counts in rows.items():
                base = rows["none", "none"] if name != "none" else [0] * len(counts)
                gains = [a - b for a, b in zip(counts, base, strict=True)]
                differences[seconds, name, way].append(gains)
    return differences, {name: statistics.fmean(values) for name, values in correlations.items()}


def make_priors(
    truth: Mapping[str, float], fitting: set[str], labels: Sequence[LengthLabel], split: int, args
) -> dict[str, Prior]:
    """Returns the priors of all problems, what they need fitted on the fitting half."""
    mean = statistics.fmean(truth[i] for i in fitting)
    spread = statistics.pstdev(truth[i] for i in fitting)
    priors: dict[str, Prior] = {"oracle": {i: log - mean for i, log in truth.items()}}
    for correlation in map(float, args.correlations.split(",")):
        rng = random.Random(f"noise/{split}/{correlation}")
        noise = spread * math.sqrt(1 - correlation**2)
        priors[f"r={correlation:g}"] = {
            i: correlation * (correlation * (truth[i] - mean) + rng.gauss(0, noise))
            for i in sorted(truth)
        }
    if labels:
        train = [label for label in labels if label.problem_id in fitting]
        priors["features"] = relative(fit_features(train), labels, fitting)
        if args.encoder:
            priors["encoder"] = relative(train_encoder(train, args.encoder), labels, fitting)
    return priors


def relative(predictor, labels: Sequence[LengthLabel], fitting: set[str]) -> Prior:
    said = predictor.predict([label.problem for label in labels])
    logs = {label.problem_id: p.mean_log_tokens for label, p in zip(labels, said, strict=True)}
    mean = statistics.fmean(logs[i] for i in fitting)
    return {i: log - mean for i, log in logs.items()}


def train_encoder(train: Sequence[LengthLabel], model: str):
    """Returns the miniature's encoder trained on these labels, on one thread: it is that small."""
    import torch

    from fastmath_kit.training.length import load_length
    from fastmath_kit.training.length_encoder import build_length, length_fields
    from fastmath_kit.training.presets import load_preset

    torch.set_num_threads(1)
    preset = load_preset("length_tiny", length_fields())
    with tempfile.TemporaryDirectory() as out:
        trainer = build_length(preset, train, model=model, out=out)
        trainer.train()
        return load_length(f"{out}/checkpoint-{trainer.state.global_step}")


def fit_thirds(
    pool: Sequence[Recorded], prior: Prior, policy: FittedPolicy
) -> tuple[list[FittedPolicy], list[float]]:
    """Returns a policy for each third of the problems by prior, and the two borders."""
    ranked = sorted(pool, key=lambda problem: prior[problem.problem_id])
    cuts = [round(len(ranked) * part / 3) for part in range(4)]
    policies = []
    for low, high in itertools.pairwise(cuts):
        part = ranked[max(low - 1, 0) : high + 1]  # a neighbour more: thirds can be small
        policies.append(fit_policy(part, policy.model, max_tokens=policy.max_tokens))
    borders = [
        statistics.fmean(prior[ranked[row].problem_id] for row in (cut - 1, cut))
        for cut in cuts[1:3]
    ]
    return policies, borders


def with_thirds(
    policies: Sequence[FittedPolicy], borders: Sequence[float], logs: Sequence[float]
) -> ThirdsPolicy:
    thirds = [sum(log > border for border in borders) for log in logs]
    return ThirdsPolicy(policies=policies, thirds=thirds)


def best_powers(
    pool: Sequence[Recorded], policy: FittedPolicy, prior: Prior, seconds: float, split: int
) -> tuple[float, float]:
    """Returns the powers that solve most on runs of the problems the policy was fitted on."""
    counts = defaultdict(int)
    for run in range(20):
        draws = draw_run(pool, NUM_PROBLEMS, random.Random(f"fit/{split}/{run}"))
        logs = [prior[draw.problem_id] for draw in draws]
        for waits, share in POWERS:
            ours = PriorPolicy(policy=policy, logs=logs, waits=waits, share=share)
            counts[waits, share] += solved(draws, ours, policy.model, seconds)
    return max(POWERS, key=lambda powers: counts[powers])


def solved(draws: Sequence[Recorded], policy: Policy, model: StepTime, seconds: float) -> int:
    outcomes = play_run(
        draws, policy, model=model, deadline_s=seconds * len(draws), num_problems=len(draws)
    )
    return sum(outcome.right for outcome in outcomes)


def brief(differences: Mapping) -> list[dict]:
    """Returns one row for each setting, prior and way, errors over splits."""
    rows = []
    for (seconds, prior, way), runs in differences.items():
        means = [statistics.fmean(gains) for gains in runs]
        error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else None
        every = [gain for gains in runs for gain in gains]
        rows.append(
            {
                "seconds_per_problem": seconds,
                "prior": prior,
                "way": way,
                "mean": statistics.fmean(means),
                "standard_error_splits": error,
                "standard_error_runs": statistics.stdev(every) / len(every) ** 0.5,
                "splits": means,
            }
        )
    return rows


def print_table(differences: Mapping, correlations: Mapping[str, float]) -> None:
    rows = {(r["seconds_per_problem"], r["prior"], r["way"]): r for r in brief(differences)}
    settings = sorted({key[0] for key in rows})
    print(f"{'prior':<10} {'way':<8} {'corr':>5}" + "".join(f"{s:>14g} s" for s in settings))
    for prior, way in dict.fromkeys(key[1:] for key in rows):
        cells = [rows[seconds, prior, way] for seconds in settings]
        known = f"{correlations[prior]:.2f}" if prior in correlations else ""
        texts = [f"{c['mean']:+.2f} ± {c['standard_error_splits'] or 0:.2f}" for c in cells]
        print(f"{prior:<10} {way:<8} {known:>5}" + "".join(f"{text:>16}" for text in texts))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
