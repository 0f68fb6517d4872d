r"""One chat format for every stage: SFT, GRPO, evaluation and submission send the same tokens.

A model that is trained on one system prompt and asked with another loses points for nothing. Every
stage gets its prompt from here, and every stage ends a completion at the same place:

    prompt_ids(tokenizer, problem.statement)  # what TRL and vLLM both receive
    completion_text(trace)                    # ends with STOP

The chat template itself is the model's own, from its tokenizer.
"""

from typing import Literal

from fastmath_kit.errors import CheckpointError, DataError

SYSTEM_PROMPT = r"Please reason step by step, and put your final answer within \boxed{}."
STOP = "</think>"
PYTHON_PROMPT = "Code in ```python blocks is run; its output follows in an ```output block."
PYTHON_TOOL = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Runs Python code and returns what it prints. Variables persist.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The code to run."}},
            "required": ["code"],
        },
    },
}


def prompt_messages(
    statement: str, python: Literal["fenced", "tool_call"] | None = None
) -> list[dict[str, str]]:
    """Returns the conversation that asks for one problem, as TRL's `prompt` column holds it.

    Args:
        statement: The problem, as the competition gives it.
        python: How the model may call Python; `fenced` is told to it in the system prompt.
    """
    system = f"{SYSTEM_PROMPT} {PYTHON_PROMPT}" if python == "fenced" else SYSTEM_PROMPT
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": statement},
    ]


def prompt_ids(
    tokenizer, statement: str, python: Literal["fenced", "tool_call"] | None = None
) -> list[int]:
    """Returns the prompt's token ids, the template's generation prompt included.

    Control tokens that stand in the statement as text are taken apart: nobody but the template
    begins or ends a turn.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        statement: The problem, as the competition gives it.
        python: How the model may call Python; for `tool_call` the template is given the tool.

    Raises:
        CheckpointError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template, so the prompt's format "
            "is unknown. Use the chat or instruct model, or add chat_template.jinja to the folder."
        )
    encoded = tokenizer.apply_chat_template(
        prompt_messages(plain_text(tokenizer, statement), python),
        tools=[PYTHON_TOOL] if python == "tool_call" else None,
        add_generation_prompt=True,
        return_dict=True,
    )
    return list(encoded["input_ids"])


def plain_text(tokenizer, text: str) -> str:
    """Returns text that holds none of the tokenizer's control tokens: `<|im_end|>` is split.

    Control tokens are its special tokens and the added ones in angle brackets, `<think>` too.
    """
    for token in tokenizer.added_tokens_decoder.values():
        marked = token.special or (token.content.startswith("<") and token.content.endswith(">"))
        if marked and token.content.strip() and token.content in text:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text


def completion_ids(tokenizer, completion: str) -> list[int]:
    """Returns the token ids of a completion, without special tokens of the tokenizer's own."""
    return tokenizer(completion, add_special_tokens=False)["input_ids"]


def stop_token_id(tokenizer) -> int:
    """Returns the id of `STOP`, one token in every model this kit serves.

    Raises:
        CheckpointError: the tokenizer splits `STOP`, so it is not a reasoning model's.
    """
    ids = completion_ids(tokenizer, STOP)
    if len(ids) != 1:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: {STOP!r} is {len(ids)} tokens, not one, so this is not a "
            "reasoning model's tokenizer. Add it as a special token before SFT."
        )
    return ids[0]


def trim_completion(completion: str) -> str:
    """Returns the completion up to and including `STOP`, where the submission ends decoding.

    Raises:
        DataError: the reasoning block never closes.
    """
    reasoning, stop, _ = completion.partition(STOP)
    if not stop:
        raise DataError(f"a completion of {len(completion)} characters never reaches {STOP!r}.")
    return reasoning + stop
