"""Every call about an image names it in its metadata, so that a proxy can send all of them to one gateway."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from samserve.client import AsyncClient, AsyncGazeStream, Client, ImageId, Prompt
from samserve.client.image import PROBE_BYTES
from tests.support.scripted_gateway import ScriptedGateway

FIRST, SECOND = b"the first frame", b"the second frame"
POINT = [(1, 2)]


def named(gateway: ScriptedGateway) -> list[str | bytes | None]:
    """What each call named."""
    return [metadata.get("samserve-image-id") for metadata in gateway.metadata]


@pytest.mark.parametrize("method", ["segment", "embed", "get_embedding"])
def test_calls_name_their_image(client: Any, gateway: ScriptedGateway, method: str) -> None:
    getattr(client, method)(FIRST)
    assert named(gateway) == [ImageId.of(FIRST)]


def test_the_id_that_goes_first_and_the_upload_after_it_name_the_same_image(
    client: Any, gateway: ScriptedGateway
) -> None:
    image = bytes(PROBE_BYTES)
    client.segment(image, POINT)
    assert gateway.sources == ["image_id", "data"]
    assert named(gateway) == [ImageId.of(image)] * 2


def test_the_image_goes_beside_the_tenant(connect: Any, gateway: ScriptedGateway) -> None:
    with connect(gateway.address, tenant="acme") as client:
        client.segment(FIRST, POINT)
    assert gateway.metadata[0]["samserve-tenant"] == "acme"
    assert named(gateway) == [ImageId.of(FIRST)]


def test_a_tracking_call_is_named_by_its_first_frame(gateway: ScriptedGateway) -> None:
    with Client(gateway.address) as client:
        assert len(list(client.track([FIRST, SECOND], {1: Prompt(POINT)}))) == 2
    assert named(gateway) == [ImageId.of(FIRST)]


@pytest.fixture
async def asynchronous(gateway: ScriptedGateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(gateway.address) as connected:
        yield connected


async def test_an_asynchronous_tracking_call_is_named_by_its_first_frame(
    asynchronous: AsyncClient, gateway: ScriptedGateway
) -> None:
    tracked = [frame async for frame in asynchronous.track([FIRST, SECOND], {1: Prompt(POINT)})]
    assert [frame.sequence for frame in tracked] == [1, 2]
    assert named(gateway) == [ImageId.of(FIRST)]


async def test_an_interactive_session_is_named_by_its_image(
    asynchronous: AsyncClient, gateway: ScriptedGateway
) -> None:
    async with asynchronous.interactive(FIRST) as session:
        await session.add_point(1, 2)
        await session.masks()
    assert named(gateway) == [ImageId.of(FIRST)]


async def test_a_gaze_stream_is_named_by_its_first_frame(asynchronous: AsyncClient, gateway: ScriptedGateway) -> None:
    async with asynchronous.gaze() as stream:
        await stream.frame(FIRST)
        await stream.frame(SECOND)
        await answered(stream)
    assert named(gateway) == [ImageId.of(FIRST)]


async def test_a_gaze_stream_that_begins_without_a_frame_is_named_by_none(
    asynchronous: AsyncClient, gateway: ScriptedGateway
) -> None:
    async with asynchronous.gaze() as stream:
        await answered(stream)
        await stream.frame(FIRST)
    assert named(gateway) == [None]


async def answered(stream: AsyncGazeStream) -> None:
    await stream.sample(0, 1, 2)
    await anext(stream)


async def test_iterating_before_the_first_message_waits_for_it(asynchronous: AsyncClient) -> None:
    async with asynchronous.gaze() as stream:
        waiting = asyncio.ensure_future(anext(stream))
        given_up = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        given_up.cancel()
        await stream.sample(0, 1, 2)
        assert await waiting


async def test_closing_an_unopened_stream_cancels_waiting_readers(
    asynchronous: AsyncClient, gateway: ScriptedGateway
) -> None:
    async with asynchronous.gaze() as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not gateway.metadata
