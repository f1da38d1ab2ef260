"""Retries of the client: which failures, after which delay, and how often."""

import asyncio
import itertools
import time
from typing import Any

import grpc
import pytest

from samserve.client import AsyncClient, ClientError, DeadlineExceeded, InvalidRequest, Overloaded, Unavailable
from samserve.client.channel import MAX_MESSAGE_BYTES, channel_options
from samserve.client.image import PROBE_BYTES
from samserve.gateway.settings import Settings
from tests.support.scripted_gateway import Failure, ScriptedGateway, retry_after, running_gateway

POINT = [(1, 2)]
DOWN = Failure(grpc.StatusCode.UNAVAILABLE)


def busy(seconds: float) -> Failure:
    return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, details=(retry_after(seconds),))


def test_an_unavailable_server_is_tried_again(client: Any, gateway: ScriptedGateway) -> None:
    gateway.failures.extend([DOWN, DOWN])
    client.segment(b"image", POINT)
    assert gateway.sources == ["data"] * 3


def test_an_upload_larger_than_grpcs_retry_buffer_is_tried_again(client: Any, gateway: ScriptedGateway) -> None:
    image = bytes(4 * PROBE_BYTES)
    gateway.failures.extend([Failure(grpc.StatusCode.NOT_FOUND), DOWN])
    client.segment(image, POINT)
    assert gateway.sources == ["image_id", "data", "data"]


def test_a_server_that_stays_unavailable_is_reported_with_its_address_and_its_advice(
    client: Any, gateway: ScriptedGateway
) -> None:
    gateway.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE, "no model", (retry_after(7),))] * 4)
    with pytest.raises(Unavailable, match=rf"{gateway.address} is unavailable \(no model\)") as caught:
        client.segment(b"image", POINT)
    assert caught.value.retry_after_seconds == 7
    assert len(gateway.requests) == 4


def test_an_address_without_a_server_is_unavailable_within_seconds(connect: Any) -> None:
    started = time.monotonic()
    with connect("127.0.0.1:1") as client, pytest.raises(Unavailable, match="check the address"):
        client.server_info()
    assert time.monotonic() - started < 10


def test_an_overloaded_server_is_retried_after_the_requested_delay(client: Any, gateway: ScriptedGateway) -> None:
    gateway.failures.append(busy(0.2))
    result = client.segment(b"image", POINT)
    assert gateway.sources == ["data", "data"]
    assert result.timings.round_trip_seconds >= 0.2


def test_retries_of_an_overloaded_server_are_limited(client: Any, gateway: ScriptedGateway) -> None:
    gateway.failures.extend([busy(0.01)] * 9)
    with pytest.raises(Overloaded) as caught:
        client.segment(b"image", POINT)
    assert caught.value.retry_after_seconds == pytest.approx(0.01)
    assert len(gateway.requests) == 4


def test_a_retry_delay_beyond_the_deadline_fails_at_once(client: Any, gateway: ScriptedGateway) -> None:
    gateway.failures.append(busy(60))
    started = time.monotonic()
    with pytest.raises(Overloaded):
        client.segment(b"image", POINT, timeout_seconds=5)
    assert time.monotonic() - started < 4


def test_exhaustion_without_a_time_to_come_back_is_not_tried_again(client: Any, gateway: ScriptedGateway) -> None:
    gateway.failures.append(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota"))
    with pytest.raises(Overloaded, match="quota") as caught:
        client.segment(b"image", POINT)
    assert caught.value.retry_after_seconds is None
    assert len(gateway.requests) == 1


def test_a_message_that_the_server_finds_too_large_is_not_tried_again(client: Any, gateway: ScriptedGateway) -> None:
    with pytest.raises(InvalidRequest, match=r"larger than .* accepts .* compressed image"):
        client.segment(bytes(3 * 1024 * 1024), POINT)
    assert gateway.sources == ["image_id"]


def test_an_answer_that_is_too_large_names_the_way_out(connect: Any, gateway: ScriptedGateway) -> None:
    tiny = (("grpc.max_receive_message_length", 64),)
    with (
        connect(gateway.address, extra_channel_options=tiny) as client,
        pytest.raises(InvalidRequest, match="fewer prompts"),
    ):
        client.segment(b"image", POINT)
    assert len(gateway.requests) == 1


def test_the_deadline_covers_the_whole_call(connect: Any, gateway: ScriptedGateway) -> None:
    gateway.silent.set()
    with (
        connect(gateway.address, timeout_seconds=0.2) as client,
        pytest.raises(DeadlineExceeded, match="timeout_seconds"),
    ):
        client.segment(b"image", POINT)


def test_a_call_with_a_timeout_of_zero_sends_nothing(client: Any, gateway: ScriptedGateway) -> None:
    with pytest.raises(DeadlineExceeded):
        client.segment(b"image", POINT, timeout_seconds=0)
    assert not gateway.requests


RETRIED_OR_ANSWERED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAVAILABLE,
    # With RetryInfo; without it is the case of a test of its own.
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    # The client then sends the image.
    grpc.StatusCode.NOT_FOUND,
}


@pytest.mark.parametrize("name", sorted(code.name for code in set(grpc.StatusCode) - RETRIED_OR_ANSWERED))
def test_other_statuses_are_not_retried(client: Any, gateway: ScriptedGateway, name: str) -> None:
    gateway.failures.append(Failure(grpc.StatusCode[name]))
    # By grpc.aio a call that the server has cancelled looks like one that its caller has.
    with pytest.raises((ClientError, asyncio.CancelledError)):
        client.segment(b"image", POINT)
    assert len(gateway.requests) == 1


def test_calls_are_spread_over_all_addresses(connect: Any, gateway: ScriptedGateway) -> None:
    with running_gateway() as other, connect(f"ipv4:{gateway.address},{other.address}") as client:
        deadline = time.monotonic() + 30
        images = (f"image {number}".encode() for number in itertools.count())
        # The second connection may come up after the first calls.
        while not (gateway.requests and other.requests):
            assert time.monotonic() < deadline, "one address got every call"
            client.embed(next(images))
        first, second = len(gateway.requests), len(other.requests)
        for _ in range(10):
            client.embed(next(images))
        assert len(gateway.requests) - first == len(other.requests) - second == 5


def test_the_clients_message_limit_is_the_servers_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAMSERVE_MAX_IMAGE_BYTES", raising=False)
    assert Settings().max_message_bytes == MAX_MESSAGE_BYTES


async def test_a_cancelled_call_ends_at_once(gateway: ScriptedGateway) -> None:
    gateway.silent.set()
    started = time.monotonic()
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.segment(b"image", POINT), 0.2)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("target", "through_proxy"),
    [
        ("localhost:50051", 0),
        ("127.0.0.1:50051", 0),
        ("[::1]:50051", 0),
        ("dns:///localhost:50051", 0),
        ("ipv4:127.0.0.1:50051", 0),
        ("samserve:50051", 1),
        ("localhost.example.org:50051", 1),
    ],
)
def test_only_other_machines_are_reached_through_the_environments_proxy(target: str, through_proxy: int) -> None:
    assert dict(channel_options(target))["grpc.enable_http_proxy"] == through_proxy
