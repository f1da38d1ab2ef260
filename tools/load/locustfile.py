"""Locust users that call a gateway over gRPC.

    locust -f tools/load/locustfile.py --host 127.0.0.1:50051 ClosedLoopUser GazeUser
    locust -f tools/load/locustfile.py --host 127.0.0.1:50051 --headless --run-time 30s --rate 50 FixedRateUser

`python -m tools.load` (make load) runs them one after the other and writes a report.
"""

import itertools
import json
import resource
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import grpc
import numpy as np
from gevent.pool import Group
from grpc.experimental.gevent import init_gevent
from locust import User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser

from samserve.api import SERVICE_NAME
from samserve.domain.gaze.simulation import GazeModel, simulate_gaze
from samserve.domain.geometry import Size
from samserve.v1 import segmentation_pb2 as pb
from tools.load.traffic import Photo, Picture, Pictures, arrivals, camera_photos, procedural_photo, random_prompts

init_gevent()
# Under gevent, a waiting call occupies a thread of this pool. With gevent's default of ten, calls queued for a thread,
# and their wait was attributed to the gateway.
gevent.get_hub().threadpool.maxsize = 1024

CONNECTIONS = 8
FRAME_SIZE = Size(480, 640)
FRAMES_PER_SECOND = 2
SAMPLES_PER_SECOND = 120.0


@events.init_command_line_parser.add_listener
def _arguments(parser: LocustArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=10.0, help="requests per second of FixedRateUser")
    parser.add_argument("--deadline", type=float, default=5.0, help="deadline of a request in seconds")
    parser.add_argument(
        "--cold-share", type=float, default=0.03, help="share of requests for an image that was never sent"
    )
    parser.add_argument("--pictures", type=int, default=100, help="number of images in the catalogue")
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent of Zipf's law for the popularity of images")
    parser.add_argument("--gaze-streams", type=int, default=1, help="open gaze streams, if GazeUser runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="JSON file to which every call is written")


class Recording:
    """Records every call of a run for the report: kind, due time, delay of sending, latency and status code."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls: list[tuple[str, float, float, float, str]] = []
        self._started = self._processor_seconds = 0.0

    def start(self, **_: Any) -> None:
        """Start recording."""
        self._started, self._processor_seconds = time.perf_counter(), _processor_seconds()

    def call(self, name: str, response_time: float, context: dict[str, Any], **_: Any) -> None:
        """Record a call."""
        due = context["due"] - self._started
        self._calls.append((name, due, context["late"], response_time / 1000, context["code"]))

    def stop(self, **_: Any) -> None:
        """Write the file."""
        record = {
            "seconds": time.perf_counter() - self._started,
            "generator_processor_seconds": _processor_seconds() - self._processor_seconds,
            "total_processor_seconds": _processor_seconds(),
            "calls": self._calls,
        }
        self._path.write_text(json.dumps(record))


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    options = _options(environment)
    GazeUser.fixed_count = options.gaze_streams
    camera_photos()
    # Start-up took seconds, which timers started from here on would otherwise include.
    gevent.get_hub().loop.update_now()
    if options.record:
        recording = Recording(options.record)
        environment.events.test_start.add_listener(recording.start)
        environment.events.request.add_listener(recording.call)
        environment.events.test_stop.add_listener(recording.stop)


def _options(environment: Environment) -> Namespace:
    options: Namespace | None = environment.parsed_options
    assert options is not None
    return options


class GrpcUser(User):
    """Base class of users: calls `SegmentationService` and reports every call to Locust by its kind."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.options = _options(environment)
        self._channels: list[grpc.Channel] = []

    def connect(self) -> grpc.Channel:
        """Open a separate connection, as another client process would."""
        local = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(self.environment.host, options=local)
        self._channels.append(channel)
        return channel

    def on_stop(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            channel.close()

    def tell(self, kind: str, due: float, late: float, code: grpc.StatusCode) -> None:
        """Report a call that has just ended to Locust.

        Args:
            due: when it should have been sent, by `time.perf_counter`; its latency counts from there.
            late: how much later it was.
        """
        self.environment.events.request.fire(
            request_type="grpc",
            name=kind,
            response_time=1000 * (time.perf_counter() - due),
            response_length=0,
            exception=None if code is grpc.StatusCode.OK else RuntimeError(code.name),
            context={"due": due, "late": late, "code": code.name},
        )


class SegmentUser(GrpcUser):
    """Calls `Segment` as the client library does: with the image id, and with the image if the server does not know the
    id."""

    abstract = True
    _numbers = itertools.count()

    def on_start(self) -> None:
        """Use random numbers that differ from other users'."""
        seed = self.options.seed + next(self._numbers)
        self.rng = np.random.default_rng((seed, 0))
        self._pictures = Pictures(self.options.pictures, self.options.zipf, seed)

    def stub(self) -> Any:
        """The `Segment` method with undecoded responses, because their content is not used."""
        return self.connect().unary_unary(f"/{SERVICE_NAME}/Segment", pb.SegmentRequest.SerializeToString)

    def segment(self, stub: Any, due: float) -> grpc.StatusCode:
        """Send one request of the mix."""
        late = time.perf_counter() - due
        fresh = self.rng.random() < self.options.cold_share
        picture = self._pictures.fresh() if fresh else self._pictures.popular()
        request = pb.SegmentRequest(
            image=pb.Image(image_id=picture.image_id),
            prompts=random_prompts(self.rng),
            coordinate_space=pb.COORDINATE_SPACE_NORMALIZED,
        )
        kind, code = "warm", self._code(stub, request, due)
        if code is grpc.StatusCode.NOT_FOUND:
            request.image.data = picture.data
            kind, code = "cold", self._code(stub, request, due)
        self.tell(kind, due, late, code)
        return code

    def _code(self, stub: Any, request: pb.SegmentRequest, due: float) -> grpc.StatusCode:
        try:
            stub(request, timeout=max(0.0, due + self.options.deadline - time.perf_counter()))
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


class ClosedLoopUser(SegmentUser):
    """Sends the next request after each answer; several users together measure the capacity. After a rejection it waits
    briefly."""

    refused_wait_seconds = 0.05

    def on_start(self) -> None:
        """Connect."""
        super().on_start()
        self._stub = self.stub()

    @task
    def ask(self) -> None:
        """Send one request."""
        if self.segment(self._stub, time.perf_counter()) is not grpc.StatusCode.OK:
            gevent.sleep(self.refused_wait_seconds)


class FixedRateUser(SegmentUser):
    """All callers of a fixed rate. Each request is sent when it is due, whether or not earlier ones were answered."""

    fixed_count = 1

    @task
    def send_all(self) -> None:
        """Send all arrivals of the run, and wait until the last is answered."""
        stubs = itertools.cycle([self.stub() for _ in range(CONNECTIONS)])
        calls, begin = Group(), time.perf_counter()
        for arrival in arrivals(self.options.rate, self.options.run_time, self.rng):
            gevent.sleep(max(0.0, begin + arrival - time.perf_counter()))
            calls.spawn(self.segment, next(stubs), begin + arrival)
        calls.join()
        raise StopUser


class GazeUser(GrpcUser):
    """A user with an eye tracker. Samples and frames are sent on schedule, and ages of answers are counted from it."""

    _numbers = itertools.count()

    def on_start(self) -> None:
        """Choose a scene of this user's own."""
        self._seed = self.options.seed + next(self._numbers)
        self._photo = Photo(procedural_photo(FRAME_SIZE, self._seed))

    @task
    def watch(self) -> None:
        """Run one stream for the whole run."""
        due: dict[int, float] = {}
        late: dict[int, float] = {}
        call = self.connect().stream_stream(
            f"/{SERVICE_NAME}/SegmentGaze", pb.SegmentGazeRequest.SerializeToString, pb.SegmentGazeResponse.FromString
        )
        try:
            for response in call(self._requests(due, late)):
                if response.HasField("answer"):
                    sequence = response.answer.sequence
                    self.tell("gaze", due[sequence], late[sequence], grpc.StatusCode.OK)
                else:
                    self.tell("gaze", time.perf_counter(), 0.0, _CODES[response.error.code])
        except grpc.RpcError as error:
            self.tell("gaze", time.perf_counter(), 0.0, error.code())
            gevent.sleep(1.0)

    def _requests(self, due: dict[int, float], late: dict[int, float]) -> Iterator[pb.SegmentGazeRequest]:
        yield pb.SegmentGazeRequest(config=pb.GazeConfig(max_mask_side=256))
        begin = time.perf_counter() + self._seed * 0.618 % 1 / SAMPLES_PER_SECOND
        each = round(SAMPLES_PER_SECOND / FRAMES_PER_SECOND)
        model = GazeModel(rate_hertz=SAMPLES_PER_SECOND)
        for sample in simulate_gaze(FRAME_SIZE, self.options.run_time, self._seed, model=model):
            if sample.sequence % each == 0:
                frame = Picture(self._photo, sample.sequence)
                yield pb.SegmentGazeRequest(
                    frame=pb.GazeFrame(sequence=sample.sequence + 1, image=pb.Image(data=frame.data))
                )
            due[sample.sequence] = begin + sample.timestamp_nanoseconds / 1e9
            gevent.sleep(max(0.0, due[sample.sequence] - time.perf_counter()))
            late[sample.sequence] = time.perf_counter() - due[sample.sequence]
            message = pb.GazeSample(
                sequence=sample.sequence,
                timestamp_nanoseconds=sample.timestamp_nanoseconds,
                x=sample.x,
                y=sample.y,
                valid=sample.valid,
            )
            yield pb.SegmentGazeRequest(sample=message)


_CODES = {code.value[0]: code for code in grpc.StatusCode}
