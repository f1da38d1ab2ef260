"""The calls as generators of steps, which a transport carries out.

Sending the id first, the upload, retries and the deadline are thus implemented once. The synchronous and the
asynchronous client differ only in how they send a request and how they wait.
"""

import random
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from grpc_health.v1 import health_pb2

from samserve.api import SERVICE_NAME
from samserve.client.errors import ClientError, DeadlineExceeded, ImageNotFound, Overloaded
from samserve.client.image import ImageLike, ImageSource, KnownImages
from samserve.client.request import Prompt, prompt_message, segment_request
from samserve.client.response import read_edges, read_embedded, read_embedding, read_segmentations, read_server_info
from samserve.client.result import EmbeddedImage, ImageEmbedding, Segmentation, ServerInfo
from samserve.domain.identity import ImageId
from samserve.v1 import segmentation_pb2 as pb

_T = TypeVar("_T")

_OVERLOAD_RETRIES = 3

GENERATION_TIMEOUT_SECONDS = 600.0
"""A grid of points takes as long as a thousand prompts, and each crop as long as an image."""


@dataclass(frozen=True, slots=True)
class Call:
    """Step: send `request` to the method `rpc`. Resumed with the response, or with a `ClientError`.

    Attributes:
        image_id: of the image that the call is about, if it is about one.
    """

    rpc: str
    request: Any
    timeout_seconds: float
    image_id: ImageId | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Step: wait. Resumed with None."""

    seconds: float


Steps: TypeAlias = Generator[Call | Wait, Any, _T]
"""What a transport runs. The generator's return value is the result of the call."""


@dataclass(frozen=True, slots=True)
class Done(Generic[_T]):
    """The result of a call."""

    result: _T


def advance(steps: Steps[_T], outcome: Any) -> Call | Wait | Done[_T]:
    """Resume the generator. Returns the next step, because StopIteration cannot pass from a thread to a coroutine."""
    try:
        return steps.send(outcome)
    except StopIteration as stop:
        return Done(stop.value)


@dataclass(frozen=True, slots=True)
class ImageCall(Generic[_T]):
    """A method that takes an image.

    Attributes:
        rpc: name of the method.
        request: from the image to the request.
        read: from the response and the round trip's seconds to the result.
        upload: whether the id alone is not enough, where the caller has the image itself.
        timeout_seconds: deadline unless the caller says otherwise; None is the client's own.
    """

    rpc: str
    request: Callable[[pb.Image], Any]
    read: Callable[[Any, float], _T]
    upload: bool = False
    timeout_seconds: float | None = None


EMBED: ImageCall[EmbeddedImage] = ImageCall(
    "EmbedImage", lambda image: pb.EmbedImageRequest(image=image), read_embedded
)

GET_EMBEDDING: ImageCall[ImageEmbedding] = ImageCall(
    "GetEmbedding", lambda image: pb.GetEmbeddingRequest(image=image), read_embedding
)


DETECT_EDGES: ImageCall[npt.NDArray[np.uint8]] = ImageCall(
    "DetectEdges", lambda image: pb.DetectEdgesRequest(image=image), read_edges
)


def segment_call(
    prompts: Sequence[Prompt], *, multimask_output: bool, normalized: bool, low_res_masks: bool
) -> ImageCall[list[Segmentation]]:
    """A `Segment` call with these prompts.

    Raises:
        InvalidRequest: a prompt's array has the wrong shape.
    """
    messages = [prompt_message(prompt) for prompt in prompts]
    texts = [prompt.text is not None for prompt in prompts]

    def request(image: pb.Image) -> pb.SegmentRequest:
        return segment_request(
            image, messages, multimask_output=multimask_output, normalized=normalized, low_res_masks=low_res_masks
        )

    # Mask generation needs the image itself for its crops, and finds all masks first.
    if any(texts):
        return ImageCall("Segment", request, partial(read_segmentations, texts=texts), True, GENERATION_TIMEOUT_SECONDS)
    return ImageCall("Segment", request, partial(read_segmentations, texts=texts))


def on_image(call: ImageCall[_T], image: ImageLike, known: KnownImages, timeout_seconds: float) -> Steps[_T]:
    """Call a method with an image, in the first of its forms that the server accepts."""
    started = time.monotonic()
    deadline = started + timeout_seconds
    source = ImageSource.of(image)
    forms = source.forms(known)[-1 if call.upload else 0 :]
    for form in forms:
        try:
            response = yield from _send(call.rpc, call.request(form), deadline, source.image_id)
        except ImageNotFound:
            known.discard(source.image_id)
            if form is forms[-1]:
                raise
        else:
            break
    known.add(source.image_id)
    return call.read(response, time.monotonic() - started)


def server_info(timeout_seconds: float) -> Steps[ServerInfo]:
    """A `GetServerInfo` call."""
    response = yield from _send("GetServerInfo", pb.GetServerInfoRequest(), time.monotonic() + timeout_seconds)
    return read_server_info(response)


def healthy(timeout_seconds: float) -> Steps[bool]:
    """Return True if the health service answers SERVING, and False for any other answer or none."""
    response = yield Call("Check", health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout_seconds)
    return not isinstance(response, ClientError) and response.status == health_pb2.HealthCheckResponse.SERVING


def _send(rpc: str, request: Any, deadline: float, image_id: ImageId | None = None) -> Generator[Call | Wait, Any, Any]:
    """Send one request. If an overloaded server suggests a retry delay, retry then, as long as the deadline allows
    it."""
    for retries_left in reversed(range(_OVERLOAD_RETRIES + 1)):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise DeadlineExceeded("the deadline expired before the request was sent; raise timeout_seconds")
        outcome = yield Call(rpc, request, remaining, image_id)
        if not isinstance(outcome, ClientError):
            return outcome
        if not isinstance(outcome, Overloaded) or outcome.retry_after_seconds is None or not retries_left:
            raise outcome
        # Jitter, so that rejected clients do not retry at the same moment.
        pause = outcome.retry_after_seconds * random.uniform(1.0, 1.5)
        if time.monotonic() + pause >= deadline:
            raise outcome
        yield Wait(pause)
    raise AssertionError("unreachable: the last attempt returns or raises")
