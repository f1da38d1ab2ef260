"""`GenerateMasks` and `DetectEdges` through real gRPC: events, crops, refusals, and clients that go away."""

import asyncio
import io
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceStub
from tests.support.gateway import Served, photo, refusal, serving

# Thresholds that masks pass whatever the bundled model thinks of them.
LENIENT: dict[str, Any] = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}


def request(data: bytes, **parameters: Any) -> pb.GenerateMasksRequest:
    return pb.GenerateMasksRequest(image=pb.Image(data=data), **{"points_per_side": 4, **LENIENT, **parameters})


async def responses(served: Served, message: pb.GenerateMasksRequest) -> list[pb.GenerateMasksResponse]:
    return [response async for response in served.stub.GenerateMasks(message)]


async def admitted(served: Served, message: pb.GenerateMasksRequest) -> list[pb.GenerateMasksResponse]:
    """The responses, once there is room for another generation."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await responses(served, message)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
            await asyncio.sleep(0.02)


async def read_all(call: Any) -> list[pb.GenerateMasksResponse]:
    return [response async for response in call]


async def test_masks_come_between_progress_and_the_end() -> None:
    async with serving() as served:
        events = await responses(served, request(photo(1), points_per_batch=8))
    kinds = [event.WhichOneof("event") for event in events]
    masks = [event.mask for event in events if event.HasField("mask")]
    assert kinds == ["started", "progress", "progress", *["mask"] * len(masks), "finished"]
    assert masks
    assert events[0].started.points_total == 16
    assert [event.progress.points_done for event in events[1:3]] == [8, 16]
    assert events[-1].finished.mask_count == len(masks)
    assert events[-1].finished.timings.decode.ToNanoseconds() > 0
    ious = [mask.mask.iou_prediction for mask in masks]
    assert ious == sorted(ious, reverse=True)
    for mask in masks:
        rle = mask.mask.coco_rle
        pixels = coco.decode({"size": [rle.size.height, rle.size.width], "counts": rle.counts})
        assert pixels.shape == (48, 64)
        assert pixels.sum() == mask.mask.area > 0
        assert (mask.crop_box.x0, mask.crop_box.y0, mask.crop_box.x1, mask.crop_box.y1) == (0, 0, 64, 48)
        assert 0 < mask.point.x < 64
        assert 0 < mask.point.y < 48


async def test_crops_are_encoded_once_and_masks_of_small_crops_come_first() -> None:
    message = request(photo(2, (200, 300)), crop_n_layers=1)
    async with serving() as served:
        first = await responses(served, message)
        by_id = pb.GenerateMasksRequest()
        by_id.CopyFrom(message)
        by_id.image.image_id = first[0].started.image_id
        again = await responses(served, by_id)
        assert served.counted("samserve_memory_cache_entries") == 5
    assert first[0].started.points_total == 5 * 16
    assert not first[0].started.cached
    assert again[0].started.cached
    assert again[-1].finished.timings.encode.ToNanoseconds() == 0
    widths = [event.mask.crop_box.x1 - event.mask.crop_box.x0 for event in first if event.HasField("mask")]
    assert widths == sorted(widths)
    assert [event.mask for event in first if event.HasField("mask")] == [
        event.mask for event in again if event.HasField("mask")
    ]


async def test_crop_of_an_image_known_by_id_alone_is_asked_for() -> None:
    async with serving() as served:
        embedded = await served.stub.EmbedImage(pb.EmbedImageRequest(image=pb.Image(data=photo(3))))
        message = request(b"", crop_n_layers=1)
        message.image.image_id = embedded.image_id
        refused = await refusal(responses(served, message))
    assert refused.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"points_per_side": 0}, "points_per_side"),
        ({"points_per_side": 65}, "points_per_side"),
        ({"points_per_batch": 0}, "points_per_batch"),
        ({"pred_iou_thresh": float("nan")}, "pred_iou_thresh"),
        ({"stability_score_thresh": 1.5}, "stability_score_thresh"),
        ({"stability_score_offset": -1.0}, "stability_score_offset"),
        ({"stability_score_offset": float("inf")}, "stability_score_offset"),
        ({"box_nms_thresh": -0.1}, "box_nms_thresh"),
        ({"crop_n_layers": 4}, "crop_n_layers"),
        ({"points_per_side": 64, "crop_n_layers": 2}, "crop_n_layers"),
        ({"crop_n_layers": 1, "crop_n_points_downscale_factor": 5}, "crop_n_points_downscale_factor"),
        ({"crop_n_points_downscale_factor": 0}, "crop_n_points_downscale_factor"),
        ({"crop_overlap_ratio": 2.0}, "crop_overlap_ratio"),
        ({"mask_format": pb.MASK_FORMAT_LOW_RES_LOGITS}, "mask_format"),
        ({"image": pb.Image()}, "image"),
        ({"image": pb.Image(data=b"no image")}, "image.data"),
    ],
)
async def test_refusal_names_the_parameter(parameters: dict[str, Any], field: str) -> None:
    message = request(photo(4))
    message.MergeFrom(pb.GenerateMasksRequest(**{k: v for k, v in parameters.items() if k != "image"}))
    if "image" in parameters:
        message.image.CopyFrom(parameters["image"])
    async with serving() as served:
        refused = await refusal(responses(served, message))
    assert (refused.code, refused.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_client_that_goes_away_frees_its_place_at_once() -> None:
    async with serving(max_generations=1) as served:
        call = served.stub.GenerateMasks(request(photo(5), points_per_side=64, points_per_batch=1))
        async for response in call:
            if response.WhichOneof("event") == "progress":
                break
        refused = await refusal(responses(served, request(photo(5))))
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.retry_after_seconds is not None
        call.cancel()
        assert (await admitted(served, request(photo(5))))[-1].HasField("finished")
        assert served.counted("samserve_requests_total", rpc="GenerateMasks", code="CANCELLED") == 1


async def test_client_that_does_not_read_loses_its_place_and_gets_deadline_exceeded() -> None:
    # Without the probe, a connection takes no more than 64 KiB ahead of its reader.
    options = [("grpc.http2.bdp_probe", 0)]
    async with (
        serving(max_generations=1, stream_idle_seconds=0.3) as served,
        grpc.aio.insecure_channel(served.gateway.address, options) as channel,
    ):
        message = request(photo(6, (1200, 1600)), points_per_side=8, box_nms_thresh=1.0, mask_format=pb.MASK_FORMAT_PNG)
        call = SegmentationServiceStub(channel).GenerateMasks(message)
        async for response in call:
            assert response.HasField("started")
            break
        assert (await admitted(served, request(photo(5))))[-1].HasField("finished")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await read_all(call)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "did not read a response" in (raised.value.details() or "")


@pytest.mark.parametrize(("size", "layers"), [((1, 1), 1), ((1, 300), 2), ((90, 2), 1)])
async def test_images_of_hardly_any_pixels_are_searched(size: tuple[int, int], layers: int) -> None:
    message = request(photo(8, size), crop_n_layers=layers, min_mask_region_area=10, points_per_side=2)
    async with serving() as served:
        events = await responses(served, message)
        edges = await served.stub.DetectEdges(pb.DetectEdgesRequest(image=message.image))
    assert events[-1].HasField("finished")
    assert all(event.mask.mask.area > 0 for event in events if event.HasField("mask"))
    assert edges.png


async def test_edges_of_an_image_are_a_map_of_its_size() -> None:
    async with serving() as served:
        image = pb.Image(data=photo(7, (120, 160)))
        first = await served.stub.DetectEdges(pb.DetectEdgesRequest(image=image))
        again = await served.stub.DetectEdges(pb.DetectEdgesRequest(image=pb.Image(image_id=first.image_id)))
        refused = await refusal(served.stub.DetectEdges(pb.DetectEdgesRequest(image=pb.Image(data=b"x"))))
    with Image.open(io.BytesIO(first.png)) as picture:
        assert picture.mode == "L"
        edges = np.asarray(picture)
    assert edges.shape == (120, 160)
    assert edges.max() == 255
    assert 0.0 < (edges > 0).mean() < 0.5
    assert (first.cached, again.cached) == (False, True)
    assert again.png == first.png
    assert (refused.code, refused.field) == (grpc.StatusCode.INVALID_ARGUMENT, "image.data")
