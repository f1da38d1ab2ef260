"""Configuration of the client's channels: message sizes, load balancing and retries."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from samserve.api import IMAGE_ID_METADATA_KEY, SERVICE_NAME, TENANT_METADATA_KEY
from samserve.client.errors import InvalidRequest
from samserve.domain.identity import ImageId
from samserve.v1 import segmentation_pb2_grpc as pb_grpc

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message sent or received: the server's default limit."""

Metadata = tuple[tuple[str, str], ...]

# Characters that gRPC allows in metadata. The length is limited because servers limit all metadata to 8 KiB.
_TENANT = re.compile(r"[\x20-\x7e]{0,1024}")

ChannelOptions = Sequence[tuple[str, str | int]]

_LOOPBACK = re.compile(r"((dns|ipv4|ipv6):(///)?)?(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": SERVICE_NAME}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                # RESOURCE_EXHAUSTED is excluded on purpose: gRPC cannot distinguish an overloaded server from a message
                # that is too large, and would upload that message four times. The client retries it if the status has
                # RetryInfo.
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def channel_options(target: str, extra: ChannelOptions = ()) -> list[tuple[str, str | int]]:
    """Options of a channel to `target`. Options in `extra` take precedence."""
    options: dict[str, str | int] = {
        "grpc.service_config": json.dumps(_SERVICE_CONFIG),
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        # gRPC buffers a request for retries only up to this size. With the default of 256 KiB, photos would never be
        # retried.
        "grpc.per_rpc_retry_buffer_size": MAX_MESSAGE_BYTES,
        # Reconnect within seconds when a gateway returns; by default gRPC waits up to two minutes.
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 5000,
        # gRPC would use the environment's proxy even for addresses of this machine.
        "grpc.enable_http_proxy": 0 if _LOOPBACK.fullmatch(target) else 1,
    }
    return list((options | dict(extra)).items())


def channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, str | int]]
) -> grpc.Channel:
    """Create a channel for threads. Without credentials it is not encrypted."""
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)


def async_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, str | int]]
) -> grpc.aio.Channel:
    """Create a channel for the running event loop. Without credentials it is not encrypted."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)


def about(image_id: ImageId | None, metadata: Metadata) -> Metadata:
    """Add the image id, if there is one, to the metadata of a call."""
    return metadata if image_id is None else (*metadata, (IMAGE_ID_METADATA_KEY, image_id))


def tenant_metadata(tenant: str) -> Metadata:
    """Metadata that identifies the tenant in each call.

    Raises:
        InvalidRequest: the tenant cannot be sent.
    """
    if not _TENANT.fullmatch(tenant):
        raise InvalidRequest("tenant", f"must be at most 1024 printable ASCII characters, got {tenant[:40]!r}")
    return ((TENANT_METADATA_KEY, tenant),) if tenant else ()


def methods(channel: grpc.Channel | grpc.aio.Channel) -> Mapping[str, Callable[..., Any]]:
    """The methods that the client calls, by name; awaitable if the channel is asynchronous."""
    stub = pb_grpc.SegmentationServiceStub(channel)
    # The type stubs of the health package lack its methods.
    health: Any = health_pb2_grpc.HealthStub(channel)
    return {
        "EmbedImage": stub.EmbedImage,
        "GetEmbedding": stub.GetEmbedding,
        "Segment": stub.Segment,
        "SegmentStream": stub.SegmentStream,
        "SegmentGaze": stub.SegmentGaze,
        "TrackObjects": stub.TrackObjects,
        "GetServerInfo": stub.GetServerInfo,
        "GenerateMasks": stub.GenerateMasks,
        "DetectEdges": stub.DetectEdges,
        "Check": health.Check,
    }
