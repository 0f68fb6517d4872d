"""gRPC connections: the first free port for a server, the first that answers for a gateway."""

import logging
import time
from collections.abc import Sequence

from fastmath_kit.errors import EngineError

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),  # otherwise an occupied port is shared in silence
    ("grpc.enable_http_proxy", 0),  # the gateway is never behind a proxy
]
_KNOCK_S = 1.0  # how long one port may take to answer before the next is tried

_logger = logging.getLogger(__name__)


def bind(server, host: str, ports: Sequence[int]) -> int:
    """Opens the first free port for a `grpc.Server` and returns it.

    Raises:
        EngineError: all are occupied.
    """
    for port in ports:
        try:
            if server.add_insecure_port(f"{host}:{port}"):
                return port
        except RuntimeError:  # what recent versions of grpc raise instead of returning 0
            _logger.info("port %d is occupied", port)
    raise EngineError(
        f"all ports of the inference server are occupied: {', '.join(map(str, ports))}. End the "
        "other notebook or process that serves on them."
    )


def connect(targets: Sequence[str], limit_s: float):
    """Returns a `grpc.Channel` to the first `host:port` that answers.

    Raises:
        EngineError: none does within `limit_s`.
    """
    import grpc

    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        for target in targets:
            channel = grpc.insecure_channel(target, options=OPTIONS)
            try:
                grpc.channel_ready_future(channel).result(timeout=min(_KNOCK_S, limit_s))
                return channel
            except grpc.FutureTimeoutError:
                channel.close()
    raise EngineError(
        f"no inference server answered on {', '.join(targets)} within {limit_s:.0f} s. Call "
        "serve() first and load the model in the background."
    )
