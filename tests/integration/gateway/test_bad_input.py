"""Bad input is refused by field, reaches no engine, and costs no memory."""

import resource
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, Served, photo, refusal, serving
from tests.support.png import png

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = photo(1)
NAN, INFINITY = float("nan"), float("inf")
MAX_IMAGE_BYTES = 1 << 20


def request(*prompts: pb.Prompt, data: bytes = GOOD, **fields: object) -> pb.SegmentRequest:
    return pb.SegmentRequest(image=pb.Image(data=data), prompts=prompts, **fields)  # type: ignore[arg-type]


def click(x: float, y: float, label: int = 1) -> pb.Prompt:
    return pb.Prompt(points=[pb.Point(x=x, y=y, label=pb.PointLabel.ValueType(label))])


def box(*xyxy: float) -> pb.Prompt:
    x0, y0, x1, y1 = xyxy
    return pb.Prompt(box=pb.Box(x0=x0, y0=y0, x1=x1, y1=y1))


BAD_REQUESTS = {
    "no image": (pb.SegmentRequest(prompts=[PNG_CLICK]), "image"),
    "empty image": (request(PNG_CLICK, data=b""), "image.data"),
    "no image at all": (request(PNG_CLICK, data=b"hello"), "image.data"),
    "truncated image": (request(PNG_CLICK, data=GOOD[: len(GOOD) // 2]), "image.data"),
    "truncated header": (request(PNG_CLICK, data=GOOD[:20]), "image.data"),
    "declared gigapixels": (request(PNG_CLICK, data=png(40_000, 40_000)), "image.data"),
    "too many bytes": (request(PNG_CLICK, data=GOOD + bytes(MAX_IMAGE_BYTES)), "image.data"),
    "malformed id": (pb.SegmentRequest(image=pb.Image(image_id="dog"), prompts=[PNG_CLICK]), "image.image_id"),
    "zero prompts": (request(), "prompts"),
    "too many prompts": (request(*[PNG_CLICK] * 513), "prompts"),
    "too many prompts, one of them a text": (request(*[PNG_CLICK] * 512, pb.Prompt(text="a dog")), "prompts"),
    "empty prompt": (request(PNG_CLICK, pb.Prompt()), "prompts[1]"),
    "too many points": (request(pb.Prompt(points=list(PNG_CLICK.points) * 65)), "prompts[0].points"),
    "too many points of no kind": (
        request(pb.Prompt(points=[pb.Point()] * 65)),
        "prompts[0].points",
    ),
    "point not a number": (request(click(NAN, 1)), "prompts[0].points[0].x"),
    "infinite point": (request(click(1, -INFINITY)), "prompts[0].points[0].y"),
    "point outside": (request(click(64.5, 1)), "prompts[0].points[0].x"),
    "negative point": (request(click(1, -1)), "prompts[0].points[0].y"),
    "label not said": (request(click(1, 1, 0)), "prompts[0].points[0].label"),
    "unknown label": (request(click(1, 1, 7)), "prompts[0].points[0].label"),
    "box inside out": (request(box(30, 5, 10, 40)), "prompts[0].box.x1"),
    "flat box": (request(box(5, 5, 10, 5)), "prompts[0].box.y1"),
    "box not a number": (request(box(5, NAN, 10, 5)), "prompts[0].box.y0"),
    "box outside": (request(box(5, 5, 10, 50)), "prompts[0].box.y1"),
    "logits of a wrong size": (
        request(pb.Prompt(mask_input=pb.LowResMask(data=bytes(2 * 9), size=3))),
        "prompts[0].mask_input.size",
    ),
    "logits without their data": (
        request(pb.Prompt(mask_input=pb.LowResMask(data=b"", size=2**32 - 1))),
        "prompts[0].mask_input.data",
    ),
    "logits of no size": (
        request(pb.Prompt(mask_input=pb.LowResMask(data=bytes(8)))),
        "prompts[0].mask_input.size",
    ),
    "unknown form": (request(PNG_CLICK, mask_format=99), "mask_format"),
    "unknown space": (request(PNG_CLICK, coordinate_space=99), "coordinate_space"),
    "normalized point outside": (
        request(click(1.5, 0.5), coordinate_space=pb.COORDINATE_SPACE_NORMALIZED),
        "prompts[0].points[0].x",
    ),
    "an answer too large": (
        request(*[PNG_CLICK] * 400, multimask_output=True, include_low_res_masks=True),
        "prompts",
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving(max_image_bytes=MAX_IMAGE_BYTES) as served:
        yield served


@pytest.mark.parametrize("case", BAD_REQUESTS)
async def test_bad_requests_name_the_field_and_run_no_model(served: Served, case: str) -> None:
    bad, field = BAD_REQUESTS[case]
    refused = await refusal(served.stub.Segment(bad))
    assert (refused.code, refused.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert refused.message.startswith(f"{field}: ")
    assert served.counted("samserve_memory_cache_entries") == 0


async def test_cached_image_is_no_way_around_the_checks(served: Served) -> None:
    async with serving() as warm:
        known = await warm.stub.EmbedImage(pb.EmbedImageRequest(image=pb.Image(data=GOOD)))
        bad = pb.SegmentRequest(image=pb.Image(image_id=known.image_id), prompts=[click(64.5, 1)])
        refused = await refusal(warm.stub.Segment(bad))
        assert (refused.code, refused.field) == (grpc.StatusCode.INVALID_ARGUMENT, "prompts[0].points[0].x")


async def test_unknown_id_is_not_found(served: Served) -> None:
    unknown = pb.Image(image_id="sha256:" + "0" * 64)
    for call in (
        served.stub.Segment(pb.SegmentRequest(image=unknown, prompts=[PNG_CLICK])),
        served.stub.EmbedImage(pb.EmbedImageRequest(image=unknown)),
        served.stub.GetEmbedding(pb.GetEmbeddingRequest(image=unknown)),
    ):
        assert (await refusal(call)).code is grpc.StatusCode.NOT_FOUND


async def test_messages_above_the_limit_are_refused(served: Served) -> None:
    refused = await refusal(served.stub.Segment(request(PNG_CLICK, data=bytes(3 * MAX_IMAGE_BYTES))))
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(2 * MAX_IMAGE_BYTES) in refused.message


async def test_a_flood_of_bad_requests_does_not_grow_memory(served: Served) -> None:
    async def flood(rounds: int) -> int:
        for _ in range(rounds):
            for bad, _ in BAD_REQUESTS.values():
                await refusal(served.stub.Segment(bad))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before_kib = await flood(3)
    assert await flood(15) - before_kib < 32 * 1024
