"""An image is encoded once in the fleet, and its prompts meet the gateway that has it in memory."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from samserve.client import AsyncClient, Client
from samserve.domain.manifest import ModelManifest
from samserve.gateway.settings import default_model_repository
from stack.ports import address
from stack.probes import sample
from stack.stack import Stack
from tests.support.gateway import photo
from tests.support.whole_stack import POINT, answered, eventually_in_prometheus, in_prometheus

ENCODED = 'sum(samserve_embeddings_total{source="encoded"})'
RUNS = 'nv_inference_request_success{model="sam_image_encoder"}'


def encodes(stack: Stack) -> float:
    """What Triton's encoder has run."""
    return sample(stack.ports.triton_metrics, "nv_inference_request_success", model="sam_image_encoder")


def test_an_image_that_both_gateways_are_asked_for_at_once_is_encoded_once(whole_stack: Stack) -> None:
    gateways = [Client(address(port)) for port in whole_stack.ports.gateways]
    before = encodes(whole_stack)
    eventually_in_prometheus(whole_stack, RUNS, lambda value: value == before)
    seen_before = in_prometheus(whole_stack, ENCODED)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda client: client.segment(photo(100), POINT), gateways * 4))
    assert len({result.masks.tobytes() for result in results}) == 1
    assert [result.embedding_source for result in results].count("encoded") == 1
    assert encodes(whole_stack) == before + 1
    eventually_in_prometheus(whole_stack, RUNS, lambda value: value == before + 1)
    eventually_in_prometheus(whole_stack, ENCODED, lambda value: value == seen_before + 1)
    for client in gateways:
        client.close()


def test_an_images_calls_land_on_one_gateway_and_images_on_both(whole_stack: Stack, client: Client) -> None:
    homes: Counter[int] = Counter()
    for seed in range(200, 216):
        before = answered(whole_stack, "Segment")
        results = [client.segment(photo(seed), POINT) for _ in range(3)]
        (home,) = answered(whole_stack, "Segment") - before
        homes[home] += 1
        assert [result.embedding_source for result in results] == ["encoded", "memory", "memory"]
    assert set(homes) == {0, 1}


async def test_a_stream_lands_where_its_first_image_is_warm(whole_stack: Stack) -> None:
    async with AsyncClient(address(whole_stack.ports.envoy)) as client:
        for seed in range(300, 306):
            before = answered(whole_stack, "EmbedImage"), answered(whole_stack, "SegmentStream")
            await client.embed(photo(seed))
            async with client.interactive(photo(seed)) as session:
                await session.add_point(*POINT[0])
                await session.masks()
                await session.end()
                assert [answer async for answer in session] == []
            (home,) = answered(whole_stack, "EmbedImage") - before[0]
            assert set(answered(whole_stack, "SegmentStream") - before[1]) == {home}


def test_calls_that_name_no_image_are_answered_too(client: Client) -> None:
    assert client.healthy()
    info = client.server_info()
    assert (info.backend, info.fingerprint) == ("triton", ModelManifest.read(default_model_repository()).fingerprint)
