"""Everything in photos, their edges, and a detector's boxes: the command and the clients against a real gateway."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from samserve.client import AsyncClient, Client, Detection, ImageId, ImageNotFound, InvalidRequest, Prompt
from tests.support.gateway_process import PHOTO

# Whatever the bundled model thinks of its masks, some pass.
LENIENT: dict[str, Any] = {"points_per_side": 4, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
LENIENT_FLAGS = ("--points-per-side", "4", "--pred-iou-thresh", "0", "--stability-score-thresh", "0")


def samserve(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "samserve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def client(gateway_address: str) -> Iterator[Client]:
    with Client(gateway_address) as client:
        yield client


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    with Image.open(PHOTO) as photo:
        photo.resize((150, 100)).save(folder / "a.jpg")
        photo.crop((100, 0, 300, 400)).resize((100, 200)).save(folder / "b.png")
    (folder / "notes.txt").write_text("no photo")
    return folder


def test_a_folder_becomes_sa1b_records_and_what_is_done_is_skipped(
    gateway_address: str, photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    arguments = ("generate", photos, "--out", out, "--server", gateway_address, *LENIENT_FLAGS)
    done = samserve(*arguments, "--overlay")
    assert done.returncode == 2
    broken, summary = done.stderr.splitlines()
    assert broken.startswith(f"{photos / 'broken.jpg'}: image.data: unsupported image format")
    assert summary == "samserve: 1 of 3 photos failed; see the errors above"
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "a.png", "b.json", "b.png"]
    record = json.loads((out / "b.json").read_text())
    assert record["image"] == {
        "image_id": ImageId.of((photos / "b.png").read_bytes()),
        "width": 100,
        "height": 200,
        "file_name": "b.png",
    }
    assert [annotation["id"] for annotation in record["annotations"]] == [*range(1, 1 + len(record["annotations"]))]
    for annotation in record["annotations"]:
        pixels = coco.decode(annotation["segmentation"])
        assert pixels.shape == (200, 100)
        assert pixels.sum() == annotation["area"]
        assert annotation["bbox"] == coco.toBbox(annotation["segmentation"]).tolist()
        assert annotation["crop_box"] == [0, 0, 100, 200]
        assert len(annotation["point_coords"]) == 1
    with Image.open(out / "b.png") as overlay:
        assert overlay.size == (100, 200)

    (photos / "broken.jpg").unlink()
    (out / "a.json").unlink()
    stamp = (out / "b.json").stat().st_mtime_ns
    again = samserve(*arguments)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("1 of 2 photos are done already")
    assert (out / "a.json").exists()
    assert (out / "b.json").stat().st_mtime_ns == stamp
    assert samserve(*arguments, "--overwrite").returncode == 0
    assert (out / "b.json").stat().st_mtime_ns > stamp


def test_a_photo_with_nothing_that_passes_says_what_to_lower(
    gateway_address: str, photos: Path, tmp_path: Path
) -> None:
    done = samserve(
        *("generate", photos / "a.jpg", "--out", tmp_path / "out", "--server", gateway_address),
        *("--points-per-side", "2", "--pred-iou-thresh", "1", "--stability-score-thresh", "1"),
    )
    assert done.returncode == 0
    assert "0 masks: no mask passes the thresholds; lower --pred-iou-thresh and --stability-score-thresh" in done.stdout
    assert json.loads((tmp_path / "out" / "a.json").read_text())["annotations"] == []


def test_what_the_user_can_mend_is_one_line(gateway_address: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (8, 8)).save(photos / "a.png")
    for source, flags, expected in (
        (tmp_path / "empty", (), "contains no photos"),
        (tmp_path / "missing.jpg", (), "No such file"),
        (photos, (), "a.jpg and a.png would both be written to a.json"),
        (photos / "a.jpg", ("--points-per-side", "99"), "points_per_side: must be between 1 and 64, got 99"),
    ):
        done = samserve("generate", source, "--out", tmp_path / "out", "--server", gateway_address, *flags)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert expected in line


async def test_both_clients_get_the_same_masks_and_may_stop_early(gateway_address: str, client: Client) -> None:
    progress: list[tuple[int, int]] = []
    masks = list(
        client.generate_masks(PHOTO, on_progress=lambda *step: progress.append(step), points_per_batch=5, **LENIENT)
    )
    assert progress == [(5, 16), (10, 16), (15, 16), (16, 16)]
    assert masks
    assert all(mask.mask.sum() == mask.area > 0 for mask in masks)
    async with AsyncClient(gateway_address) as asynchronous:
        again = [mask async for mask in asynchronous.generate_masks(PHOTO, **LENIENT)]
        async with aclosing(asynchronous.generate_masks(PHOTO, **LENIENT)) as stopped:
            assert (await anext(stopped)).area == masks[0].area
    assert [(mask.rle, mask.point) for mask in again] == [(mask.rle, mask.point) for mask in masks]
    for _ in range(20):  # more than the server lets in at a time
        assert next(iter(client.generate_masks(PHOTO, **LENIENT))).area == masks[0].area


def test_crops_of_an_image_that_the_server_knows_are_sent(client: Client) -> None:
    client.embed(PHOTO)
    masks = list(client.generate_masks(PHOTO, crop_n_layers=1, **LENIENT | {"points_per_side": 2}))
    assert len({mask.crop_box for mask in masks}) > 1
    with pytest.raises(ImageNotFound):
        list(client.generate_masks(ImageId.of(b"never sent"), **LENIENT))
    with pytest.raises(InvalidRequest, match="box_nms_thresh: must be between 0 and 1, got 3"):
        next(client.generate_masks(PHOTO, box_nms_thresh=3))


def test_edges_are_a_map_of_the_photo(client: Client) -> None:
    edges = client.detect_edges(PHOTO)
    assert edges.shape == (400, 600)
    assert edges.dtype == np.uint8
    assert edges.max() == 255


def test_hundreds_of_boxes_are_one_call_and_keep_their_classes(client: Client) -> None:
    prompts = [
        Prompt(
            box=(10 + n % 20 * 20, 10 + n // 20 * 15, 40 + n % 20 * 20, 60 + n // 20 * 15),
            detection=Detection(n, n / 200),
        )
        for n in range(200)
    ]
    # So many take a busy machine longer than a call has by default.
    results = client.segment_many(PHOTO, prompts, multimask_output=False, timeout_seconds=200)
    assert [result.detection for result in results] == [prompt.detection for prompt in prompts]
    assert client.segment(PHOTO, box=(10, 10, 50, 50)).detection is None


def test_a_detectors_boxes_become_coco_results(gateway_address: str, photos: Path, tmp_path: Path) -> None:
    boxes, out, overlay = tmp_path / "boxes.json", tmp_path / "coco.json", tmp_path / "overlay.png"
    detections = [
        {"image_id": 1, "category_id": 17, "bbox": [-5, 20, 80, 60], "score": 0.75},
        {"image_id": 1, "category_id": 3, "bbox": [60, 10, 120.5, 80], "score": 0.5},
    ]
    boxes.write_text(json.dumps(detections))
    segment = ("segment", photos / "a.jpg", "--server", gateway_address, "--boxes", boxes)
    done = samserve(*segment, "--coco", out, "--out", overlay)
    assert (done.returncode, done.stderr) == (0, "")
    assert "150 x 100, 2 boxes" in done.stdout
    results = json.loads(out.read_text())
    assert [(r["image_id"], r["category_id"], r["score"]) for r in results] == [(1, 17, 0.75), (1, 3, 0.5)]
    for result in results:
        assert coco.decode(result["segmentation"]).shape == (100, 150)
        assert result["bbox"] == coco.toBbox(result["segmentation"]).tolist()
    with Image.open(overlay) as picture:
        assert picture.size == (150, 100)
    assert json.loads(samserve(*segment, "--json").stdout) == results

    boxes.write_text(json.dumps([{"bbox": [200, 0, 10, 10]}]))
    refused = samserve(*segment, "--coco", out)
    assert refused.returncode == 2
    outside = "bbox [200, 0, 10, 10] lies outside the photo of 150 x 100 pixels"
    assert refused.stderr == f"samserve: {boxes}: entry 0: {outside}\n"
