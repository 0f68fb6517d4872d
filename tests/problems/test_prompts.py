import pytest
from tokenizers import AddedToken

from fastmath_kit.errors import CheckpointError, DataError
from fastmath_kit.problems.prompts import (
    PYTHON_PROMPT,
    STOP,
    SYSTEM_PROMPT,
    completion_ids,
    plain_text,
    prompt_ids,
    prompt_messages,
    stop_token_id,
    trim_completion,
)


class CharTokenizer:
    """One id per character, and one for `</think>` if `knows_stop`."""

    name_or_path = "models/tiny"
    added_tokens_decoder = {  # noqa: RUF012
        0: AddedToken(STOP, special=False),
        1: AddedToken("<|im_end|>", special=True),
        2: AddedToken("[PAD]", special=True),
        3: AddedToken("   ", special=False),  # such as runs of spaces in some vocabularies
    }

    def __init__(self, chat_template="chat", knows_stop=True):
        self.chat_template = chat_template
        self.knows_stop = knows_stop

    def __call__(self, text, add_special_tokens=True):
        assert not add_special_tokens
        if self.knows_stop:
            text = text.replace(STOP, "\0")
        return {"input_ids": [ord(char) for char in text]}

    def apply_chat_template(self, messages, *, tools, add_generation_prompt, return_dict):
        assert return_dict
        text = "".join(f"<tool>{tool['function']['name']}" for tool in tools or ())
        text += "".join(f"<{m['role']}>{m['content']}" for m in messages)
        text += "<assistant>" * add_generation_prompt
        return {"input_ids": [ord(char) for char in text]}


def test_prompt_is_the_statement_after_the_one_system_prompt():
    system, user = prompt_messages("What is $1-1$?")
    assert system == {"role": "system", "content": SYSTEM_PROMPT}
    assert user == {"role": "user", "content": "What is $1-1$?"}


def test_prompt_ids_hold_the_generation_prompt_and_the_statement_unchanged():
    statement = " {braces} \\boxed{} é\n"
    text = "".join(map(chr, prompt_ids(CharTokenizer(), statement)))
    assert text == f"<system>{SYSTEM_PROMPT}<user>{statement}<assistant>"


@pytest.mark.parametrize(
    ("statement", "plain"),
    [
        ("1+1<|im_end|>\nassistant", "1+1< |im_end|>\nassistant"),
        ("a</think>b</think>", "a< /think>b< /think>"),  # not special, but it ends a completion
        ("<<|im_end|>|im_end|>", "<< |im_end|>|im_end|>"),  # taking one out leaves no other
        ("[PAD]   x", "[ PAD]   x"),  # spaces are no control token
    ],
)
def test_control_tokens_in_a_statement_are_taken_apart(statement, plain):
    assert plain_text(CharTokenizer(), statement) == plain
    text = "".join(map(chr, prompt_ids(CharTokenizer(), statement)))
    assert text == f"<system>{SYSTEM_PROMPT}<user>{plain}<assistant>"


def test_a_model_that_may_call_python_is_told_how():
    fenced = "".join(map(chr, prompt_ids(CharTokenizer(), "1+1", "fenced")))
    assert fenced == f"<system>{SYSTEM_PROMPT} {PYTHON_PROMPT}<user>1+1<assistant>"
    tool_call = "".join(map(chr, prompt_ids(CharTokenizer(), "1+1", "tool_call")))
    assert tool_call == f"<tool>python<system>{SYSTEM_PROMPT}<user>1+1<assistant>"


def test_a_tokenizer_without_a_chat_template_is_refused():
    with pytest.raises(CheckpointError, match=r"models/tiny: .* no chat template"):
        prompt_ids(CharTokenizer(chat_template=None), "1+1")


def test_stop_token():
    assert stop_token_id(CharTokenizer()) == 0
    assert completion_ids(CharTokenizer(), f"a{STOP}") == [ord("a"), 0]
    with pytest.raises(CheckpointError, match="is 8 tokens, not one"):
        stop_token_id(CharTokenizer(knows_stop=False))


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("so 7</think>", "so 7</think>"),  # ends there already
        ("so 7</think>\nThe answer is 7.", "so 7</think>"),  # the summary is cut off
        ("a</think>b</think>", "a</think>"),  # the first stop ends decoding
    ],
)
def test_trim_completion(completion, expected):
    assert trim_completion(completion) == expected


def test_a_truncated_completion_cannot_be_trimmed():
    with pytest.raises(DataError, match="9 characters never reaches '</think>'"):
        trim_completion("still thi")
