"""Text prompts through real gRPC, with a small CLIP of random weights behind them."""

import asyncio
import io
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from samserve.cli import main
from samserve.client import AsyncClient, Client, ImageNotFound, InvalidRequest, Prompt, ServerError
from samserve.domain.identity import ImageId
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, photo, refusal, serving
from tests.support.text_requests import PHOTO, SETTINGS, text_request


async def test_masks_answer_a_text_the_most_similar_first(clip_repository: Path) -> None:
    async with serving(model_repository=clip_repository, **SETTINGS) as served:
        info = await served.stub.GetServerInfo(pb.GetServerInfoRequest())
        first = await served.stub.Segment(text_request("a cup", "a red truck", multimask_output=True))
        again = await served.stub.Segment(text_request("a red truck", "a cup", multimask_output=True))
        single = await served.stub.Segment(text_request("a cup", mask_format=pb.MASK_FORMAT_PNG))
    assert info.text_prompts
    assert not first.cached
    assert again.cached
    assert first.results
    for result in first.results:
        similarities = [mask.text_similarity for mask in result.masks]
        assert len(similarities) == 3
        assert similarities == sorted(similarities, reverse=True)
        assert -1 <= similarities[-1] < similarities[0] <= 1
        assert all(mask.area > 0 and mask.coco_rle.counts for mask in result.masks)
    # Of the same image, other texts beside it change nothing.
    for result, same in zip(first.results, reversed(again.results), strict=True):
        assert [mask.coco_rle for mask in result.masks] == [mask.coco_rle for mask in same.masks]
        np.testing.assert_allclose(
            [mask.text_similarity for mask in result.masks], [mask.text_similarity for mask in same.masks], atol=1e-5
        )
    assert first.results[0].masks[0].text_similarity != first.results[1].masks[0].text_similarity
    [best] = single.results[0].masks
    assert Image.open(io.BytesIO(best.png)).size == (first.original_size.width, first.original_size.height)
    assert (best.area, best.bbox) == (first.results[0].masks[0].area, first.results[0].masks[0].bbox)
    assert first.timings.rank.ToNanoseconds() > 0
    assert first.timings.total.ToNanoseconds() > first.timings.decode.ToNanoseconds() > 0


async def test_notes_on_the_image_come_with_masks_of_a_text(clip_repository: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)).save(file, "PNG")
    async with serving(model_repository=clip_repository, **SETTINGS) as served:
        response = await served.stub.Segment(text_request("a cup", image=pb.Image(data=file.getvalue())))
    (note,) = response.notes
    assert "12 bits" in note


BAD = [
    (text_request(""), "prompts[0].text"),
    (text_request("a cup", " "), "prompts[1].text"),
    (text_request("x" * 401), "prompts[0].text"),
    (text_request(*["a cup"] * 17), "prompts"),
    (text_request("a cup", include_low_res_masks=True), "include_low_res_masks"),
    (text_request("a cup", mask_format=pb.MASK_FORMAT_LOW_RES_LOGITS), "mask_format"),
    (text_request("a cup", prompts=[pb.Prompt(text="a cup"), PNG_CLICK]), "prompts[1]"),
    (text_request(prompts=[pb.Prompt(text="a cup", points=PNG_CLICK.points)]), "prompts[0].points"),
    (text_request(prompts=[pb.Prompt(text="a cup", box=pb.Box(x1=5, y1=5))]), "prompts[0].box"),
    (text_request(prompts=[pb.Prompt(text="a cup", mask_input=pb.LowResMask())]), "prompts[0].mask_input"),
]
BAD_FOR_ITS_CLIP = [
    (text_request("a cup", "dog " * 20), "prompts[1].text"),
    (text_request("a cup", image=pb.Image(data=b"no image")), "image.data"),
]


async def test_refusals_name_the_field(clip_repository: Path) -> None:
    async with serving(model_repository=clip_repository, **SETTINGS) as served:
        for message, field in BAD + BAD_FOR_ITS_CLIP:
            refused = await refusal(served.stub.Segment(message))
            assert (refused.code, refused.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_server_without_clip_still_validates_text_requests() -> None:
    async with serving() as served:
        for message, field in BAD:
            refused = await refusal(served.stub.Segment(message))
            assert (refused.code, refused.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_server_without_clip_explains_the_refusal_of_text_and_serves_other_prompts() -> None:
    async with serving() as served:
        refused = await refusal(served.stub.Segment(text_request("a cup")))
        info = await served.stub.GetServerInfo(pb.GetServerInfoRequest())
        click = await served.stub.Segment(pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK]))
        async with AsyncClient(served.gateway.address) as client:
            with pytest.raises(ServerError, match=r"\.\[text\].*build_engines.py --text-model"):
                await client.segment(PHOTO, text="a cup")
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "pip install -e '.[text]'" in refused.message
    assert "build_engines.py --text-model" in refused.message
    assert not info.text_prompts
    assert len(click.results) == 1


async def test_server_without_the_text_extra_names_the_package_to_install(
    clip_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    async with serving(model_repository=clip_repository) as served:
        refused = await refusal(served.stub.Segment(text_request("a cup")))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "pip install -e '.[text]'" in refused.message


async def test_text_elsewhere_is_refused_by_name(clip_repository: Path) -> None:
    message = pb.TrackObjectsRequest(sequence=1, frame=pb.Image(data=photo(1)))
    message.prompts.add(object_id=1, prompt=pb.Prompt(text="a cup"))
    async with serving(model_repository=clip_repository) as served:
        call = served.stub.TrackObjects()
        await call.write(message)
        await call.done_writing()
        answers = [answer async for answer in call]
    assert [(answer.error.field, answer.error.code) for answer in answers] == [
        ("prompts[0].prompt.text", grpc.StatusCode.INVALID_ARGUMENT.value[0])
    ]


async def test_both_clients_send_the_image_itself(clip_repository: Path) -> None:
    async with serving(model_repository=clip_repository, **SETTINGS) as served:
        address = served.gateway.address
        async with AsyncClient(address) as client:
            await client.embed(PHOTO)
            found = await client.segment(PHOTO, text="a cup")
            with pytest.raises(ImageNotFound, match="send the image itself"):
                await client.segment(ImageId.of(PHOTO), text="a cup")
            with pytest.raises(InvalidRequest) as refused:
                await client.segment(PHOTO, [(5, 5)], text="a cup")
            assert (await client.server_info()).text_prompts

        def ask() -> Any:
            with Client(address) as client:
                return client.segment_many(PHOTO, [Prompt(text="a cup"), Prompt(text="a dog")], multimask_output=False)

        first, second = await asyncio.to_thread(ask)
    assert refused.value.field == "prompts[0].points"
    assert found.cached
    assert found.text_similarities is not None
    assert found.text_similarities.shape == found.iou_predictions.shape == (3,)
    assert found.best == 0
    assert found.masks.shape == (3, *found.original_size)
    assert first.rles == found.rles[:1]
    assert second.text_similarities is not None


async def test_image_without_a_mask_has_an_empty_answer(clip_repository: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "grey").save(file, "PNG")
    async with (
        # A predicted IoU may be more than 1.
        serving(
            model_repository=clip_repository,
            text_points_per_side=1,
            text_pred_iou_thresh=1.0,
            text_stability_score_thresh=1.0,
        ) as served,
        AsyncClient(served.gateway.address) as client,
    ):
        found = await client.segment(file.getvalue(), text="a cup")
    assert found.text_similarities is not None
    assert len(found.text_similarities) == len(found.rles) == len(found.masks) == 0


def test_command_segments_the_object_of_a_text(
    clip_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAMSERVE_MODEL_REPOSITORY", str(clip_repository))
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"SAMSERVE_{name.upper()}", str(value))
    picture, path = tmp_path / "overlay.png", tmp_path / "coffee.jpg"
    path.write_bytes(PHOTO)
    assert main(["segment", str(path), "--text", "a cup", "--out", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "similarity" in printed
    assert "rank" in printed
    with Image.open(picture) as overlay:
        assert overlay.size[0] > 0
    assert main(["segment", str(path), "--text", "a cup", "--point", "5,5"]) == 2
    assert "--text cannot be combined with --point" in capsys.readouterr().err
