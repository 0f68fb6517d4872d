"""A local gateway and inference server that speak the competition's protocol over real gRPC.

On Kaggle the package `kaggle_evaluation` is mounted with the competition's data. Where it is not,
these classes stand in for it, with the same calls, so one notebook runs in both places:

    server = inference_server(load_competition("aimo3"))(predict)
    if is_rerun():
        server.serve()
    else:
        server.run_local_gateway(("test.csv",))  # writes submission.parquet here

Problems are shuffled and sent one by one, on the ports and with the limits of the competition. What
comes back is judged as Kaggle judges it (`checks.py`).
"""

import importlib
import importlib.util
import logging
import random
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from fastmath_kit.errors import ConfigError, EngineError
from fastmath_kit.kaggle.channel import OPTIONS, bind, connect
from fastmath_kit.kaggle.checks import call_failure, check_predict, check_return, submission_table
from fastmath_kit.kaggle.environment import INPUT_ROOT, find_mount
from fastmath_kit.kaggle.wire import SEND, SERVICE, from_payload, messages, to_payload
from fastmath_kit.problems.competition import Competition
from fastmath_kit.problems.files import atomic_path
from fastmath_kit.problems.records import read_problems

PORTS = (50_051, *range(60_053, 60_063))

_logger = logging.getLogger(__name__)


class InferenceServer:
    """Answers a gateway's calls with `predict`, on one worker thread as Kaggle's does."""

    def __init__(
        self,
        predict: Callable,
        *,
        competition: Competition,
        seed: int | None = None,
        ports: Sequence[int] = PORTS,
    ) -> None:
        """Takes what will answer; no port is opened yet.

        Args:
            predict: A plain function named `predict`.
            competition: Rules the local gateway holds the answers to.
            seed: Order of the problems in a local run, random if None.
            ports: Ports to try, in this order.

        Raises:
            ConfigError: Kaggle would refuse `predict`.
        """
        check_predict(predict)
        self._predict = predict
        self._competition = competition
        self._seed = seed
        self._ports = tuple(ports)
        self._stopping = threading.Event()

    def serve(self) -> None:
        """Answers whoever dials in, until `stop` is called from another thread."""
        server, port = self._start("[::]")  # on Kaggle the gateway is another host
        _logger.info("inference server: listening on port %d", port)
        try:
            self._stopping.wait()
        finally:
            server.stop(grace=None).wait()

    def stop(self) -> None:
        """Ends `serve`, also one that has not begun."""
        self._stopping.set()

    def run_local_gateway(self, data_paths: tuple[str | Path]) -> None:
        """Sends every problem of a CSV file and writes `submission.parquet` here.

        Args:
            data_paths: The path of one problem file, in a tuple as Kaggle's class takes it.

        Raises:
            DataError: the problem file is missing or malformed, or the folder cannot be written.
            EngineError: no free port, or an answer that Kaggle would refuse.
        """
        server, port = self._start("127.0.0.1")
        try:
            (path,) = data_paths
            Gateway(path, competition=self._competition, seed=self._seed, ports=(port,)).run()
        finally:
            server.stop(grace=None).wait()

    def _start(self, host: str):
        import grpc

        server = grpc.server(
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="predict"), options=OPTIONS
        )
        pb = messages()
        send = grpc.unary_unary_rpc_method_handler(
            self._send, pb.Request.FromString, pb.Response.SerializeToString
        )
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Send": send})
        server.add_generic_rpc_handlers((handler,))
        port = bind(server, host, self._ports)
        server.start()
        return server, port

    def _send(self, request, context):
        if request.name != "predict":
            raise NotImplementedError(f"no listener is registered for {request.name!r}.")
        args = [from_payload(payload) for payload in request.args]
        kwargs = {key: from_payload(payload) for key, payload in request.kwargs.items()}
        return messages().Response(payload=to_payload(self._predict(*args, **kwargs)))


class Gateway:
    """Kaggle's side: sends problems one at a time, checks each answer, writes the submission."""

    def __init__(
        self,
        path: str | Path,
        *,
        competition: Competition,
        seed: int | None = None,
        host: str = "localhost",
        ports: Sequence[int] = PORTS,
    ) -> None:
        """Takes the problems and where to send them; nothing is sent yet.

        Args:
            path: Problem file. Every column travels, so `answer` becomes a third argument.
            competition: How long to wait for the server and for each answer.
            seed: Order of the problems, random if None.
            host: Where the inference server runs.
            ports: Ports it may listen on, tried in turn until it answers.
        """
        self._path = Path(path)
        self._competition = competition
        self._seed = seed
        self._targets = [f"{host}:{port}" for port in ports]

    def run(self) -> None:
        """Sends every problem in random order and writes `submission.parquet` here."""
        frame, ids = self._shuffled()
        channel = connect(self._targets, self._competition.startup_limit_s)
        try:
            returned = self._ask_all(channel, frame)
        finally:
            channel.close()
        submission = submission_table(returned, ids)
        with atomic_path("submission.parquet") as temporary:
            submission.write_parquet(temporary)

    def _shuffled(self):
        """Returns the table to serve, all-digit ids as whole numbers, and the ids as text."""
        import polars as pl

        problems = read_problems(self._path)  # names the row and column that is wrong
        frame = pl.read_csv(self._path, infer_schema_length=None)
        frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
        order = random.Random(self._seed).sample(range(len(problems)), len(problems))
        return frame[order], [problems[index].id for index in order]

    def _ask_all(self, channel, served) -> list:
        import grpc

        pb = messages()
        send = channel.unary_unary(SEND, pb.Request.SerializeToString, pb.Response.FromString)
        returned = []
        for row in served.iter_slices(1):
            args = [to_payload(row[column]) for column in row.columns]
            limit_s = self._competition.call_limit_s if returned else None  # the first may load
            try:
                response = send(pb.Request(name="predict", args=args), timeout=limit_s)
            except grpc.RpcError as error:
                raise call_failure(row["id"][0], error, limit_s) from error
            returned.append(check_return(row["id"][0], from_payload(response.payload)))
            _logger.info("gateway: %d of %d answered", len(returned), served.height)
        return returned


def inference_server(competition: Competition, *, root: str | Path = INPUT_ROOT) -> Callable:
    """Returns the class to give `predict` to: Kaggle's where it is mounted, ours otherwise.

    Args:
        competition: Names Kaggle's class and the mount that holds it.
        root: Folder of all mounts.

    Raises:
        EngineError: Kaggle's package is there but lacks the competition's server.
    """
    module_name, _, class_name = competition.server.rpartition(".")
    package = module_name.partition(".")[0]
    for folder in _package_folders(competition, package, Path(root)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    if importlib.util.find_spec(package) is None:
        _logger.info("%s is not mounted: using the local gateway", package)
        return partial(InferenceServer, competition=competition)
    try:
        return vars(importlib.import_module(module_name))[class_name]
    except (ImportError, KeyError) as error:
        raise EngineError(
            f"{package} is mounted but {competition.server} cannot be imported ({error!r}). Check "
            "the field `server` of the competition and the packages of the image."
        ) from error


def _package_folders(competition: Competition, package: str, root: Path) -> list[str]:
    try:
        mount = find_mount("competition", competition.slug, root=root)
    except ConfigError:
        return []
    return [str(folder.parent) for folder in mount.glob(f"**/{package}") if folder.is_dir()]
