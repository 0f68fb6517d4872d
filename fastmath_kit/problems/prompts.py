r"""One chat format for every stage: SFT, GRPO, evaluation and submission send the same tokens.

A model that is trained on one system prompt and asked with another loses points for nothing. Every
stage gets its prompt from here, and every stage ends a completion at the same place:

    prompt_ids(tokenizer, problem.statement)  # what TRL and vLLM both receive
    completion_text(trace)                    # ends with STOP

The chat template itself is the model's own, from its tokenizer.
"""

from fastmath_kit.errors import CheckpointError, DataError

SYSTEM_PROMPT = r"Please reason step by step, and put your final answer within \boxed{}."
STOP = "</think>"


def prompt_messages(statement: str) -> list[dict[str, str]]:
    """Returns the conversation that asks for one problem, as TRL's `prompt` column holds it."""
    return [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": statement},
    ]


def prompt_ids(tokenizer, statement: str) -> list[int]:
    """Returns the prompt's token ids, the template's generation prompt included.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        statement: The problem, as the competition gives it.

    Raises:
        CheckpointError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template, so the prompt's format "
            "is unknown. Use the chat or instruct model, or add chat_template.jinja to the folder."
        )
    encoded = tokenizer.apply_chat_template(
        prompt_messages(statement), add_generation_prompt=True, return_dict=True
    )
    return list(encoded["input_ids"])


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
