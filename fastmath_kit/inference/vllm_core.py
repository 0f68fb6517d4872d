"""What of vLLM this kit calls: its engine's start and end, and the parameters of a completion.

    engine = start({"model": "runs/demo/sft-10"}, in_process=True)
    engine.add_request("a", tokens_input(ids), sampling_params(sampling, stop_token_id))

The only module that imports vLLM.
"""

import math
from collections.abc import Iterable

from fastmath_kit.inference.environment import starting_environment
from fastmath_kit.inference.model_folder import has_four_bit_weights, read_config
from fastmath_kit.inference.protocol import Sampling

CLOSE_S = 20.0  # how long vLLM may take to end before it is left behind
_STREAM_TOKENS = 4  # told at a time; each telling costs a tenth of the miniature's step
_NUM_LIKELIEST = 5  # tokens a place whose probabilities are asked for


def start(options: dict, *, in_process: bool):
    """Returns vLLM's `LLMEngine`, built in the thread that will step it.

    Args:
        options: Fields of vLLM's `EngineArgs`.
        in_process: False gives it processes of its own.
    """
    with starting_environment(in_process=in_process):
        from vllm import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        on_cpu = current_platform.is_cpu()
        four_bit = has_four_bit_weights(read_config(options["model"]))
        if on_cpu and four_bit and options["dtype"] == "auto":
            options = {**options, "dtype": "bfloat16"}  # vLLM's 4-bit CPU kernel has no float32
        args = EngineArgs(
            **options,
            enforce_eager=on_cpu,
            enable_chunked_prefill=not on_cpu,  # vLLM rewinds a seeded CPU generator, and dies
            enable_prefix_caching=True,
            load_format="safetensors",
            disable_log_stats=True,
            use_tqdm_on_load=False,
        )
        return LLMEngine.from_engine_args(args)


def kv_capacity_tokens(engine) -> int:
    """Returns how many tokens the key-value cache holds, as vLLM measured at its start."""
    cache = engine.vllm_config.cache_config
    return cache.num_gpu_blocks * cache.block_size


def add_request(
    engine, request_id: str, prompt_ids: list[int], sampling: Sampling, stop_token_id: int
) -> None:
    """Starts a completion whose every step returns only what is new."""
    from vllm import SamplingParams
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        seed=sampling.seed,
        # vLLM adds the model's own eos ids
        stop_token_ids=[stop_token_id] if sampling.ends_at_stop else None,
        skip_special_tokens=False,
        logprobs=_NUM_LIKELIEST if sampling.weigh else None,
        output_kind=RequestOutputKind.DELTA,
        stream_interval=_STREAM_TOKENS if sampling.until is None else 1,
    )
    engine.add_request(request_id, tokens_input(prompt_ids), params)


def entropies(completion) -> list[float]:
    """Returns the entropy in nats of the likeliest tokens at each new place.

    It bounds that of all tokens from below.
    """
    return [_entropy(likeliest.values()) for likeliest in completion.logprobs or ()]


def _entropy(likeliest: Iterable) -> float:
    return -sum(math.exp(token.logprob) * token.logprob for token in likeliest)


def end_wait_for_dead_core(client) -> bool:
    """Whether vLLM's process died; ends the wait for its output, which would last forever."""
    if not client.resources.engine_dead:
        return False
    from vllm.v1.engine.exceptions import EngineDeadError

    client.outputs_queue.put(EngineDeadError())
    return True


def check_alive(engine) -> None:
    """Raises vLLM's `EngineDeadError` if its process died."""
    engine.engine_core.ensure_alive()


def shut_down(engine) -> None:
    """Ends vLLM's processes and threads."""
    engine.engine_core.shutdown(timeout=CLOSE_S / 2)
    engine.renderer.shutdown()
