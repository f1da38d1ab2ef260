"""Segmentation for other services.

>>> with Client("localhost:50051") as client:
...     result = client.segment("photo.jpg", point_coords=[(320, 240)], point_labels=[1])
...     mask = result.masks[result.best]
"""

from samserve.client._async.client import AsyncClient
from samserve.client._async.gaze import AsyncGazeStream
from samserve.client._async.interactive import AsyncInteractiveSession
from samserve.client._sync.client import Client
from samserve.client._sync.gaze import GazeStream
from samserve.client._sync.interactive import InteractiveSession
from samserve.client.errors import (
    ClientError,
    DeadlineExceeded,
    ImageNotFound,
    InvalidRequest,
    Overloaded,
    RetryLater,
    ServerError,
    Unavailable,
)
from samserve.client.gaze import GazeAnswer, GazeCounts
from samserve.client.generation import GeneratedMask, MaskGenerationParameters
from samserve.client.image import ImageLike
from samserve.client.interactive import SessionMasks
from samserve.client.request import Prompt
from samserve.client.result import (
    CocoRle,
    Detection,
    EmbeddedImage,
    ImageEmbedding,
    Limits,
    Segmentation,
    ServerInfo,
    Timings,
)
from samserve.client.streaming import Refused, StreamMask
from samserve.client.tracking import TrackedFrame, TrackedObject
from samserve.domain.identity import ImageId

__all__ = [
    "AsyncClient",
    "AsyncGazeStream",
    "AsyncInteractiveSession",
    "Client",
    "ClientError",
    "CocoRle",
    "DeadlineExceeded",
    "Detection",
    "EmbeddedImage",
    "GazeAnswer",
    "GazeCounts",
    "GazeStream",
    "GeneratedMask",
    "ImageEmbedding",
    "ImageId",
    "ImageLike",
    "ImageNotFound",
    "InteractiveSession",
    "InvalidRequest",
    "Limits",
    "MaskGenerationParameters",
    "Overloaded",
    "Prompt",
    "Refused",
    "RetryLater",
    "Segmentation",
    "ServerError",
    "ServerInfo",
    "SessionMasks",
    "StreamMask",
    "Timings",
    "TrackedFrame",
    "TrackedObject",
    "Unavailable",
]
