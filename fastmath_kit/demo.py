"""The whole recipe in miniature, through the code of the real models: what `make demo` runs.

    run_demo("runs/demo")  # base -> SFT -> GRPO -> quantize -> budget policy -> rehearse, report

Each stage leaves files that say it is finished, so a demo that was stopped continues after the last
finished stage, SFT and GRPO at their last checkpoint. All measurements are on held-out problems.
"""

import json
import logging
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from fastmath_kit import tiny
from fastmath_kit.errors import ConfigError
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.problems.records import read_traces, write_problems

SEED = 0
NUM_TRAIN = 4_000  # lessons
NUM_HELD_OUT = 200  # problems
K = 8  # completions per problem
MAX_TOKENS = 128  # of a completion; the longest teacher trace has 105
BUDGETS_TOKENS = (16, 24, 32, 48, 64, 96, 128)
SFT_EPOCHS = (1, 2, 4, 10)
NUM_REHEARSED = 50  # held-out problems, besides the three toys
NUM_CALIBRATION = 256  # traces
NUM_DRAWS = 8  # simulated draws of a problem, to fit the budget policy
REHEARSAL_S = 300.0  # for the engine's start and 53 problems of under a second each
STAGES = ("base", *(f"sft-{epochs}" for epochs in SFT_EPOCHS), "grpo", "w4a16", "w8a8")
# Seconds on two cores, as measured, for the bar; only their ratio matters.
_EXPECTED_S = {"model": 5, "sft": 200, **{f"eval {stage}": 9 for stage in STAGES}}
_EXPECTED_S |= {"grpo": 50, "w4a16": 25, "w8a8": 10, "policy": 12, "rehearse": 70}

_log = logging.getLogger(__name__)
OnProgress = Callable[[int, int], None]


class _Demo:
    """One run folder, its data and what is finished in it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.lessons, self.held_out = tiny.make_split(
            num_train=NUM_TRAIN, num_held_out=NUM_HELD_OUT, seed=SEED
        )
        self.sampling = Sampling(max_tokens=MAX_TOKENS, seed=SEED)

    def write_base(self, _: OnProgress) -> None:
        """Writes the problems and the untrained model."""
        write_problems(self.held_out, self.out / "held_out.csv")
        rehearsed = [*tiny.TOY_PROBLEMS, *self.held_out[:NUM_REHEARSED]]
        write_problems(rehearsed, self.out / "rehearsal.csv")
        if not (self.out / "base").exists():
            _finish(self.out / "base", lambda folder: tiny.write_model(folder, seed=SEED))

    def train_sft(self, on_progress: OnProgress) -> None:
        """Trains on the teacher's traces; a checkpoint an epoch, four of them kept as models."""
        from fastmath_kit.training.presets import load_preset
        from fastmath_kit.training.runs import check_output_folder
        from fastmath_kit.training.sft import build_sft, sft_fields

        rng = random.Random(SEED)
        rows = [
            {"problem": x.problem.statement, "completion": tiny.teacher_completion(x, rng)}
            for x in self.lessons
        ]
        run, model = self.out / "sft", self.out / "base"
        preset = load_preset("sft_tiny", sft_fields())
        trainer = build_sft(preset, rows, model=model, out=run, on_progress=on_progress)
        trainer.train(resume_from_checkpoint=check_output_folder(run, resume=True))
        steps_per_epoch = trainer.state.max_steps // SFT_EPOCHS[-1]
        for epochs in SFT_EPOCHS:
            self._keep(run / f"checkpoint-{epochs * steps_per_epoch}", f"sft-{epochs}")

    def train_grpo(self, on_progress: OnProgress) -> None:
        """Shortens the answers of the last SFT checkpoint, on the training problems."""
        from fastmath_kit.training.grpo import build_grpo, grpo_fields
        from fastmath_kit.training.presets import load_preset
        from fastmath_kit.training.runs import check_output_folder

        problems = list({x.problem.statement: x.problem for x in self.lessons}.values())
        run, model = self.out / "grpo-run", self.out / f"sft-{SFT_EPOCHS[-1]}"
        preset = load_preset("grpo_tiny", grpo_fields())
        trainer = build_grpo(preset, problems, model=model, out=run, on_progress=on_progress)
        trainer.train(resume_from_checkpoint=check_output_folder(run, resume=True))
        self._keep(run / f"checkpoint-{trainer.state.max_steps}", "grpo")

    def _keep(self, checkpoint: Path, stage: str) -> None:
        """Copies a checkpoint's model, without the optimizer, to the folder of a stage."""
        state = shutil.ignore_patterns("optimizer*", "scheduler*", "rng_state*", "training_args*")
        if not (self.out / stage).exists():
            _finish(
                self.out / stage, lambda folder: shutil.copytree(checkpoint, folder, ignore=state)
            )

    def evaluation(self, stage: str) -> tuple[str, list[Path], Callable[[OnProgress], object]]:
        """Returns the name, the output and the work of sampling and scoring a stage's model."""
        folder = self.out / "evaluation" / stage

        def evaluate_stage(on_progress: OnProgress) -> None:
            from fastmath_kit.evaluation.sweep import evaluate

            evaluate(
                self.out / stage,
                self.held_out,
                k=K,
                budgets_tokens=BUDGETS_TOKENS,
                out=folder,
                sampling=self.sampling,
                on_progress=on_progress,
            )

        return f"eval {stage}", [folder / "traces.parquet"], evaluate_stage

    def quantize(self, stage: str, _: OnProgress) -> None:
        """Quantizes the GRPO model, calibrated on its own traces of training problems."""
        from fastmath_kit.training.quantize import quantize

        quantize(
            self.out / "grpo",
            f"gptq-{stage}",
            self.out / stage,
            calibration_texts=self._calibration_texts(),
            max_tokens=2 * MAX_TOKENS,
        )

    def _calibration_texts(self) -> list[str]:
        from fastmath_kit.inference.engine import VLLMEngine
        from fastmath_kit.inference.solve import sample_traces
        from fastmath_kit.training.data import calibration_texts

        problems = [lesson.problem for lesson in self.lessons[:NUM_CALIBRATION]]
        with VLLMEngine(self.out / "grpo", in_process=True) as engine:
            traces = sample_traces(problems, engine, k=1, sampling=self.sampling)
            return calibration_texts(traces, problems, engine.tokenizer)

    def fit_policy(self, _: OnProgress) -> None:
        """Fits the budget policy to this machine and GRPO's traces of problems not rehearsed."""
        from fastmath_kit.budget.fitted import write_policy
        from fastmath_kit.budget.fitting import fit_policy
        from fastmath_kit.budget.recorded import recorded_problems
        from fastmath_kit.budget.throughput import HARDWARE, calibrate
        from fastmath_kit.inference.engine import VLLMEngine
        from fastmath_kit.inference.warmup import measure_probes, start_warm

        model = self.out / "w4a16"
        with start_warm(partial(VLLMEngine, model, in_process=True), model) as engine:
            probes = measure_probes(engine)
        speed = calibrate(probes, replace(HARDWARE["h100"], prompt_tokens=50, overhead_s=0.05))
        rehearsed = {problem.id for problem in self.held_out[:NUM_REHEARSED]}
        traces = read_traces(self.out / "evaluation" / "grpo" / "traces.parquet")
        pool = recorded_problems([t for t in traces if t.problem_id not in rehearsed])
        if not any(problem.right for problem in pool):
            _log.warning("no trace is right, so no policy is fitted: the kernel keeps its own rule")
            return
        policy = fit_policy(pool, speed, max_tokens=MAX_TOKENS, num_draws=NUM_DRAWS, seed=SEED)
        write_policy(policy, self.out / "policy.json")

    def rehearse(self, _: OnProgress) -> None:
        """Runs the submission notebook with the 4-bit model and the policy, as Kaggle runs it."""
        from fastmath_kit.evaluation.report import write_json
        from fastmath_kit.kaggle.rehearsal import rehearse

        run = self.out / "rehearsal"
        shutil.rmtree(run, ignore_errors=True)  # one that was stopped half-way
        result = rehearse(
            "aimo3",
            self.out / "rehearsal.csv",
            self.out / "w4a16",
            run,
            parameters={
                "MAX_MODEL_LEN": None,
                "MAX_TOKENS": MAX_TOKENS,
                "POLICY": str((self.out / "policy.json").resolve()),
                "DEADLINE_S": REHEARSAL_S,
                "RESERVE_S": 10.0,
                "FALLBACK_ANSWER": 99_999,  # not 0, which would be right for all three toys
            },
        )
        answers = result.pop("answers")
        result["toy_answers"] = {p.statement: answers[p.id] for p in tiny.TOY_PROBLEMS}
        write_json(result, run / "result.json")


def run_demo(out: str | Path) -> dict:
    """Runs what is not finished yet in `out` and returns what `report.json` holds.

    Raises:
        ConfigError: `out` is a file.
    """
    from fastmath_kit.display.progress import StageProgress

    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file. Choose a folder with --out.")
    demo = _Demo(out)
    with StageProgress(out, expected_s=_EXPECTED_S) as stages:
        stages.run("model", [out / "rehearsal.csv", out / "base"], demo.write_base)
        stages.run("sft", [out / stage for stage in STAGES[1:5]], demo.train_sft)
        for stage in STAGES[:5]:
            stages.run(*demo.evaluation(stage))
        stages.run("grpo", [out / "grpo"], demo.train_grpo)
        stages.run(*demo.evaluation("grpo"))
        for stage in ("w4a16", "w8a8"):
            stages.run(stage, [out / stage], partial(demo.quantize, stage))
            stages.run(*demo.evaluation(stage))
        stages.run("policy", [out / "policy.json"], demo.fit_policy)
        result = out / "rehearsal" / "result.json"
        stages.run("rehearse", [result], demo.rehearse)
    return _report(out, elapsed_s=sum(stages.seconds.values()))


def _finish(folder: Path, write: Callable[[Path], object]) -> None:
    """Fills a folder under a temporary name, so that one of this name is always complete."""
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    write(temporary)
    temporary.rename(folder)


def _report(out: Path, *, elapsed_s: float) -> dict:
    from rich.console import Console

    from fastmath_kit.evaluation.report import terminal_table, write_report
    from fastmath_kit.evaluation.sweep import compare, summarize
    from fastmath_kit.training.runs import git_commit, versions

    traces = {s: read_traces(out / "evaluation" / s / "traces.parquet") for s in STAGES}
    last_sft = f"sft-{SFT_EPOCHS[-1]}"
    report = {
        "elapsed_s": elapsed_s,
        "stages": [summarize(s, traces[s], BUDGETS_TOKENS) for s in STAGES],
        "grpo_vs_sft": compare(traces[last_sft], traces["grpo"]),
        "rehearsal": json.loads((out / "rehearsal" / "result.json").read_text()),
        "versions": versions(),
        "commit": git_commit(),
    }
    page = write_report(report, traces, out)
    console = Console(stderr=True)
    console.print(terminal_table(report))
    console.print(f"Report: {page}", soft_wrap=True)
    return report
