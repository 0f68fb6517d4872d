"""A simulated engine that writes recorded traces as fast as its step time allows."""

import heapq

from fastmath_kit.budget.policy import ProblemState
from fastmath_kit.budget.throughput import StepTime
from fastmath_kit.budget.weather import Weather
from fastmath_kit.problems.answers import Answer


class SimulatedEngine:
    """One problem's traces on the air, and their votes.

    When the key-value cache is full the trace launched last waits; it comes back, read again, when
    another has ended.

    Attributes:
        elapsed_s: Seconds since the first launch.
        work_s: How long the same work takes on the planned engine.
        num_launched: Traces launched.
        leader: The answer that leads; a tie goes to the one that reached its count first.
        leader_votes: Its votes.
        second_votes: Votes of the next one.
    """

    def __init__(
        self,
        tokens: tuple[float, ...],
        answers: tuple[Answer | None, ...],
        model: StepTime,
        max_tokens: int,
        *,
        planned: StepTime | None = None,
    ) -> None:
        """Takes the traces in launch order; there are no more than these."""
        self.elapsed_s = self.work_s = 0.0
        self.num_launched = self.leader_votes = self.second_votes = 0
        self.leader: Answer | None = None
        self._tokens, self._answers, self._model = tokens, answers, model
        self._max_tokens = max_tokens
        self._planned = planned or model
        self._step = self._context = self._owed_s = 0.0
        self._running: list[tuple[float, int]] = []  # heap of final step and launch
        self._starts: list[float] = []  # the step at which each launch would have begun
        self._waiting: list[tuple[float, int]] = []  # tokens so far and launch
        self._finished: list[Answer | None] = []
        self._votes: dict[Answer, int] = {}

    @property
    def num_live(self) -> int:
        """Traces that have not ended."""
        return len(self._running) + len(self._waiting)

    def launch(self, num_traces: int) -> None:
        """Starts the next traces, as many as were recorded: none may vote twice."""
        num_traces = min(num_traces, len(self._tokens) - self.num_launched)
        for _ in range(num_traces):
            self._starts.append(self._step)
            self._start(self.num_launched, 0.0)
            self.num_launched += 1
        if num_traces:  # one prompt, shared by all
            self._owed_s += self._model.prompt_tokens / self._model.prefill_tokens_per_s

    def state(self) -> ProblemState:
        """Returns what a stop rule is told."""
        step, starts = self._step, self._starts
        live = [int(step - starts[launch]) for _, launch in self._running]
        live += [int(tokens) for tokens, _ in self._waiting]
        return ProblemState(
            elapsed_s=self.elapsed_s,
            answers=tuple(self._finished),
            leader_votes=self.leader_votes,
            second_votes=self.second_votes,
            live_tokens=tuple(live),
        )

    def advance(self, start_s: float, until_s: float, weather: Weather) -> None:
        """Runs to the next end of a trace, or to `until_s` since the first launch.

        Args:
            start_s: The first launch on the run's clock, for the weather.
            until_s: When to return though nothing ended.
            weather: What goes wrong.
        """
        model = self._model
        while True:
            num_running = len(self._running)
            room = (model.kv_capacity_tokens - self._context) / max(num_running, 1)
            if room < 1 and num_running > 1:
                self._preempt()
                continue
            to_end = self._running[0][0] - self._step if num_running else 0.0
            steps = min(to_end, room) if num_running > 1 else to_end
            work_s = self._owed_s + model.seconds(steps, num_running, self._context)
            now_s = start_s + self.elapsed_s
            seconds = weather.seconds(now_s, work_s) if num_running else float("inf")
            if self.elapsed_s + seconds > until_s:
                break
            self._grow(steps, seconds, self._owed_s)
            if steps == to_end:
                self._end_due()
                return
        work_s = weather.work_s(now_s, until_s - self.elapsed_s)
        busy_s = max(work_s - self._owed_s, 0.0)
        owed_s = max(self._owed_s - work_s, 0.0)
        steps = model.steps(busy_s, num_running, self._context) if num_running else 0.0
        self._grow(steps, until_s - self.elapsed_s, min(work_s, self._owed_s))
        self._owed_s = owed_s

    def _grow(self, steps: float, seconds: float, read_s: float) -> None:
        """Adds steps, and before them what `read_s` of this engine read of prompts."""
        planned, num_running = self._planned, len(self._running)
        self.work_s += planned.seconds(steps, num_running, self._context)
        self.work_s += read_s * self._model.prefill_tokens_per_s / planned.prefill_tokens_per_s
        self._step += steps
        self._context += steps * num_running
        self._owed_s = 0.0
        self.elapsed_s += seconds

    def _length(self, launch: int) -> float:
        return min(self._tokens[launch], self._max_tokens)

    def _start(self, launch: int, tokens: float) -> None:
        self._starts[launch] = self._step - tokens
        heapq.heappush(self._running, (self._step + self._length(launch) - tokens, launch))
        self._context += self._model.prompt_tokens + tokens

    def _preempt(self) -> None:
        last = max(self._running, key=lambda row: row[1])
        self._running.remove(last)
        heapq.heapify(self._running)
        tokens = self._step - self._starts[last[1]]
        self._context -= self._model.prompt_tokens + tokens
        self._waiting.append((tokens, last[1]))

    def _end_due(self) -> None:
        """Ends the traces that are complete, counts their votes and lets waiting ones back in."""
        while self._running and self._running[0][0] <= self._step + 1e-6:
            _, launch = heapq.heappop(self._running)
            self._context -= self._model.prompt_tokens + self._step - self._starts[launch]
            whole = self._tokens[launch] <= self._max_tokens
            self._vote(self._answers[launch] if whole else None)
        while self._waiting:
            tokens, launch = self._waiting[-1]
            room = self._model.kv_capacity_tokens - self._context - self._model.prompt_tokens
            if self._running and tokens > 0.95 * room:
                break
            self._waiting.pop()
            self._start(launch, tokens)
            self._owed_s += tokens / self._model.prefill_tokens_per_s

    def _vote(self, answer: Answer | None) -> None:
        self._finished.append(answer)
        if answer is None:
            return
        count = self._votes[answer] = self._votes.get(answer, 0) + 1
        if count > self.leader_votes:
            self.leader, self.leader_votes = answer, count
        others = (votes for other, votes in self._votes.items() if other != self.leader)
        self.second_votes = max(others, default=0)
