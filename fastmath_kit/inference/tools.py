r"""Python for the model: it writes code, a sandbox runs it, and what was printed goes back.

    with Sandbox() as sandbox:
        solve(problem, engine, rule, tool=PythonTool(sandbox=sandbox, style="fenced"))

Two styles: a block of ```python that is answered by a block of ```output, and the tool call of the
model's chat template. What is sampled and what is answered form one completion.
"""

import json
import re
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from fastmath_kit.errors import CheckpointError, ConfigError, EngineError
from fastmath_kit.inference.sandbox import Output, Sandbox, Session
from fastmath_kit.inference.stops import Until
from fastmath_kit.problems.prompts import plain_text

_BLOCK = re.compile(r"```(?:python|py)[ \t]*\n(.*?)```", re.DOTALL)
_TOOL_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_MARK = "fastmath-kit-assistant-turn"


@dataclass(frozen=True, slots=True)
class Call:
    """A call that a completion makes.

    Attributes:
        end: Where it ends in the text.
        code: What to run, None if it cannot be read.
        problem: What is wrong with the call, for the model.
    """

    end: int
    code: str | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonTool:
    """How a model calls Python and within which limits.

    Attributes:
        sandbox: Runs the code. State lasts from one call of a trace to the next.
        style: `fenced` (blocks of ```python and ```output) or `tool_call` (the chat template's).
        max_calls: Most calls of one trace.
        timeout_s: Most seconds of one call.
        max_output_chars: Most characters of one output that the model is shown.
    """

    sandbox: Sandbox
    style: Literal["fenced", "tool_call"] = "fenced"
    max_calls: int = 8
    timeout_s: float = 10.0
    max_output_chars: int = 4_000

    def __post_init__(self) -> None:
        if self.style not in ("fenced", "tool_call"):
            raise ConfigError(f"style must be 'fenced' or 'tool_call', got {self.style!r}.")
        for name in ("max_calls", "timeout_s", "max_output_chars"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}.")

    @property
    def until(self) -> Until:
        """What pauses a completion: a complete call."""
        triggers = "`" if self.style == "fenced" else ">"
        return Until(triggers, lambda text: self.find_call(text) is not None)

    def find_call(self, text: str) -> Call | None:
        """Returns the first complete call in what a model wrote."""
        if self.style == "fenced":
            block = _BLOCK.search(text)
            return block and Call(end=block.end(), code=block.group(1))
        call = _TOOL_CALL.search(text)
        return call and _read_tool_call(call)

    def reply(self, tokenizer, output: str) -> str:
        """Returns the text with which a completion goes on after a call.

        Raises:
            CheckpointError: the chat template has no turn for a tool's output.
        """
        output = plain_text(tokenizer, _shortened(output, self.max_output_chars))
        if self.style == "fenced":
            return f"\n```output\n{output}\n```\n"
        turns = [{"role": "user", "content": "."}, {"role": "assistant", "content": _MARK}]
        turns.append({"role": "tool", "name": "python", "content": output})
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        _, _, after = text.partition(_MARK)
        if output not in after:
            raise CheckpointError(
                f"{tokenizer.name_or_path}: its chat template has no turn for a tool's output. "
                "Use style='fenced' or a model that calls tools."
            )
        return after


def _read_tool_call(match: re.Match) -> Call:
    """Returns the code of `{"name": "python", "arguments": {"code": ...}}`."""
    try:
        call = json.loads(match.group(1))
    except (ValueError, RecursionError) as error:
        return Call(match.end(), None, f"This is not JSON: {error}.")
    arguments = call.get("arguments") if isinstance(call, dict) else None
    code = arguments.get("code") if isinstance(arguments, dict) else None
    if not isinstance(code, str) or call.get("name") != "python":
        return Call(match.end(), None, 'The only tool is "python" with the argument "code".')
    return Call(match.end(), code)


def _shortened(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    head, tail = max_chars - max_chars // 2, max_chars // 2
    cut = len(text) - max_chars
    return f"{text[:head]}\n[{cut} characters left out]\n{text[len(text) - tail :]}"


def _shown(output: Output) -> str:
    """Returns what the model is told of a call."""
    parts = [output.stdout.rstrip("\n"), output.error or ""]
    return "\n".join(part for part in parts if part) or "[no output]"


def _told(message: str) -> Future[Output]:
    """Returns a call that has ended, of which the model is told this."""
    future: Future[Output] = Future()
    future.set_result(
        Output(stdout="", error=message, timed_out=False, seconds=0.0, truncated=False)
    )
    return future


@dataclass(slots=True, kw_only=True)
class Conversation:
    """One trace's calls: what was said before the segment that is being sampled.

    Attributes:
        tool: Its limits.
        text: Everything before, replies included.
        num_calls: Calls made.
    """

    tool: PythonTool
    text: str = ""
    num_calls: int = 0
    _session: Session | None = None
    _call: Future[Output] | None = None

    @property
    def until(self) -> Until | None:
        """What pauses the next segment; nothing once the model was told that no calls are left."""
        return self.tool.until if self.num_calls <= self.tool.max_calls else None

    @property
    def is_calling(self) -> bool:
        """Whether a call was begun and its output not yet fetched."""
        return self._call is not None

    def begin_call(self, text: str) -> bool:
        """Runs the call that a segment ends in, if it does; returns at once."""
        call = self.tool.find_call(text) if self.until is not None else None
        if call is None:
            return False
        self.text += text[: call.end]
        self.num_calls += 1
        if self.num_calls > self.tool.max_calls:
            self._call = _told("No calls are left. Finish without Python.")
        elif call.code is None:
            self._call = _told(call.problem)
        else:
            self._call = self._submit(call.code)
        return True

    def _submit(self, code: str) -> Future[Output]:
        try:
            self._session = self._session or self.tool.sandbox.session()
            return self._session.submit(code, self.tool.timeout_s)
        except EngineError as error:  # the model goes on without its tool
            return _told(f"Python is not available: {error}")

    def end_call(self, tokenizer) -> Output | None:
        """Returns the call's output, now part of the text, or None while it runs."""
        if self._call is None or not self._call.done():
            return None
        error = self._call.exception()
        call = _told(f"Python is not available: {error}") if error is not None else self._call
        output, self._call = call.result(), None
        self.text += self.tool.reply(tokenizer, _shown(output))
        return output

    def close(self) -> None:
        """Gives the sandbox back."""
        if self._session is not None:
            self._session.close()
