"""Unary calls through a real gateway: embeddings, masks, server info, health and metrics."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from pycocotools import mask as coco

from samserve.domain.manifest import ModelManifest
from samserve.gateway.settings import default_model_repository
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import FOUND_IOU, PNG_CLICK, Served, disc, iou, photo, pixels_of, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving(metrics_port=0) as served:
        yield served


async def test_bytes_are_encoded_once_and_then_known_by_id(served: Served) -> None:
    data = photo(1)
    first = await served.stub.EmbedImage(pb.EmbedImageRequest(image=pb.Image(data=data)))
    assert (first.cached, first.embedding_source) == (False, pb.EMBEDDING_SOURCE_ENCODED)
    assert first.original_size == pb.Size(height=48, width=64)
    assert first.timings.encode.ToTimedelta() <= first.timings.total.ToTimedelta()
    assert first.timings.encode.ToTimedelta().total_seconds() > 0
    by_id = pb.Image(image_id=first.image_id)
    second = await served.stub.Segment(pb.SegmentRequest(image=by_id, prompts=[PNG_CLICK]))
    assert (second.cached, second.embedding_source) == (True, pb.EMBEDDING_SOURCE_MEMORY)
    assert second.timings.encode.ToTimedelta().total_seconds() == 0
    assert second.timings.decode.ToTimedelta().total_seconds() > 0


async def test_samples_that_use_few_of_16_bits_are_noted_where_the_image_is_encoded(served: Served) -> None:
    file = io.BytesIO()
    Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)).save(file, "PNG")
    image = pb.Image(data=file.getvalue())
    (note,) = (await served.stub.EmbedImage(pb.EmbedImageRequest(image=image))).notes
    assert "12 bits" in note
    assert not (await served.stub.Segment(pb.SegmentRequest(image=image, prompts=[PNG_CLICK]))).notes


async def test_embedding_has_the_shape_of_the_manifest(served: Served) -> None:
    manifest = ModelManifest.read(default_model_repository())
    answer = await served.stub.GetEmbedding(pb.GetEmbeddingRequest(image=pb.Image(data=photo(2))))
    assert tuple(answer.shape) == manifest.embedding_shape
    assert answer.fingerprint == manifest.fingerprint
    values = np.frombuffer(answer.embedding, "<f2").reshape(answer.shape)
    assert np.isfinite(values).all()
    assert values.astype(np.float32).std() > 0


@pytest.mark.parametrize(("multimask_output", "masks"), [(False, 1), (True, 3)])
async def test_multimask_output_chooses_one_mask_or_three(served: Served, multimask_output: bool, masks: int) -> None:
    request = pb.SegmentRequest(
        image=pb.Image(data=photo(1)), prompts=[PNG_CLICK] * 2, multimask_output=multimask_output
    )
    answer = await served.stub.Segment(request)
    assert [len(result.masks) for result in answer.results] == [masks] * 2


@pytest.mark.parametrize("size", [(48, 64), (300, 200), (480, 640)])
async def test_a_click_on_an_object_or_a_box_around_it_finds_it(served: Served, size: tuple[int, int]) -> None:
    height, width = size
    radius = min(size) / 3
    around = pb.Box(x0=width / 2 - radius, y0=height / 2 - radius, x1=width / 2 + radius, y1=height / 2 + radius)
    click = pb.Prompt(points=[pb.Point(x=width / 2, y=height / 2, label=pb.POINT_LABEL_FOREGROUND)])
    for prompt, multimask_output in ((click, True), (pb.Prompt(box=around), False)):
        answer = await served.stub.Segment(
            pb.SegmentRequest(image=pb.Image(data=photo(1, size)), prompts=[prompt], multimask_output=multimask_output)
        )
        best = max(answer.results[0].masks, key=lambda mask: mask.iou_prediction)
        assert iou(pixels_of(best), disc(size)) >= FOUND_IOU


async def test_all_mask_formats_describe_the_same_mask(served: Served) -> None:
    image = pb.Image(data=photo(1))
    forms = {}
    for mask_format in pb.MaskFormat.values():
        request = pb.SegmentRequest(image=image, prompts=[PNG_CLICK], mask_format=mask_format)
        forms[mask_format] = (await served.stub.Segment(request)).results[0].masks[0]
    rle, png = forms[pb.MASK_FORMAT_COCO_RLE].coco_rle, forms[pb.MASK_FORMAT_PNG].png
    full = coco.decode({"size": [rle.size.height, rle.size.width], "counts": rle.counts})
    with Image.open(io.BytesIO(png)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), full > 0)
    assert forms[pb.MASK_FORMAT_UNSPECIFIED] == forms[pb.MASK_FORMAT_COCO_RLE]
    assert forms[pb.MASK_FORMAT_POLYGONS].WhichOneof("form") == "polygons"
    assert forms[pb.MASK_FORMAT_LOW_RES_LOGITS].low_res_logits.size > 0
    assert {mask.area for mask in forms.values()} == {full.sum()}


async def test_normalized_and_pixel_coordinates_give_the_same_masks(served: Served) -> None:
    image = pb.Image(data=photo(1))
    pixels = pb.Prompt(points=PNG_CLICK.points, box=pb.Box(x0=8, y0=6, x1=48, y1=36))
    normalized = pb.Prompt(
        points=[pb.Point(x=20 / 64, y=15 / 48, label=pb.POINT_LABEL_FOREGROUND)],
        box=pb.Box(x0=8 / 64, y0=6 / 48, x1=48 / 64, y1=36 / 48),
    )
    first = await served.stub.Segment(pb.SegmentRequest(image=image, prompts=[pixels]))
    second = await served.stub.Segment(
        pb.SegmentRequest(image=image, prompts=[normalized], coordinate_space=pb.COORDINATE_SPACE_NORMALIZED)
    )
    assert first.results[0].masks[0].coco_rle == second.results[0].masks[0].coco_rle


async def test_logits_of_an_answer_refine_the_next_prompt(served: Served) -> None:
    image = pb.Image(data=photo(1))
    first = await served.stub.Segment(
        pb.SegmentRequest(image=image, prompts=[PNG_CLICK], multimask_output=True, include_low_res_masks=True)
    )
    logits = first.results[0].masks[0].low_res_mask
    refined = await served.stub.Segment(
        pb.SegmentRequest(
            image=image, prompts=[pb.Prompt(points=PNG_CLICK.points, mask_input=logits), pb.Prompt(mask_input=logits)]
        )
    )
    assert len(refined.results) == 2
    plain = await served.stub.Segment(pb.SegmentRequest(image=image, prompts=[PNG_CLICK]))
    assert refined.results[0].masks[0].iou_prediction != plain.results[0].masks[0].iou_prediction


async def test_a_prompts_result_does_not_depend_on_its_neighbours(served: Served) -> None:
    image = pb.Image(data=photo(3))
    rng = np.random.default_rng(5)
    prompts = [
        pb.Prompt(
            points=[
                pb.Point(
                    x=rng.uniform(0, 64), y=rng.uniform(0, 48), label=pb.PointLabel.ValueType(int(rng.integers(1, 3)))
                )
                for _ in range(rng.integers(0 if boxed else 1, 6))
            ],
            box=pb.Box(x0=5, y0=5, x1=rng.uniform(10, 64), y1=rng.uniform(10, 48)) if boxed else None,
        )
        for boxed in rng.random(40) < 0.5
    ]
    together = await served.stub.Segment(pb.SegmentRequest(image=image, prompts=prompts, multimask_output=True))
    for prompt, result in zip(prompts, together.results, strict=True):
        alone = await served.stub.Segment(pb.SegmentRequest(image=image, prompts=[prompt], multimask_output=True))
        for mask, expected in zip(result.masks, alone.results[0].masks, strict=True):
            assert abs(mask.iou_prediction - expected.iou_prediction) < 1e-4
            assert abs(mask.area - expected.area) <= 2


async def test_server_info_reports_model_and_limits(served: Served) -> None:
    manifest = ModelManifest.read(default_model_repository())
    info = await served.stub.GetServerInfo(pb.GetServerInfoRequest())
    assert (info.model, info.fingerprint, info.backend) == (manifest.model, manifest.fingerprint, "onnxruntime")
    assert (info.image_size, info.low_res_size) == (manifest.image_size, manifest.low_res_size)
    assert info.limits.max_prompts == 512


@pytest.mark.parametrize("service", ["", "samserve.v1.SegmentationService"])
async def test_health_check_and_watch_report_each_service(served: Served, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert (await stub.Check(request)).status == serving
    watch = stub.Watch(request)
    assert (await anext(aiter(watch))).status == serving
    watch.cancel()


async def test_reflection_lists_the_service(served: Served) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)  # type: ignore[arg-type]
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    calls: Any = stub.ServerReflectionInfo
    async for answer in calls(requests):
        names = {service.name for service in answer.list_services_response.service}
        assert "samserve.v1.SegmentationService" in names


async def test_counted_requests_are_exported_to_prometheus(served: Served) -> None:
    def scrape() -> dict[str, float]:
        with urlopen(f"http://127.0.0.1:{served.gateway.metrics_port}/metrics") as page:
            families = text_string_to_metric_families(page.read().decode())
            return {f"{s.name}{sorted(s.labels.items())}": s.value for f in families for s in f.samples}

    before = await asyncio.to_thread(scrape)
    assert before["samserve_redis_calls_total[('operation', 'get'), ('outcome', 'timeout')]"] == 0
    await served.stub.Segment(pb.SegmentRequest(image=pb.Image(data=photo(9)), prompts=[PNG_CLICK]))
    after = await asyncio.to_thread(scrape)
    for name in (
        "samserve_requests_total[('code', 'OK'), ('rpc', 'Segment')]",
        "samserve_embeddings_total[('source', 'encoded')]",
        "samserve_memory_cache_entries[]",
    ):
        assert after[name] == before.get(name, 0) + 1


async def test_request_id_comes_back(served: Served) -> None:
    call = served.stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=(("x-request-id", "abc"),))
    assert dict(await call.initial_metadata())["x-request-id"] == "abc"
    call = served.stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=(("x-request-id", "what a log line"),))
    assert " " not in dict(await call.initial_metadata())["x-request-id"]
    await call
