"""Everything in photos, their edges, and a detector's boxes: the command and the clients against a real gateway."""

import json
import os
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
from tests.support.gateway_process import PHOTO, gateway_process

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
    assert again.stdout.endswith("1 of 2 photos are done already (--overwrite reprocesses them)\n")
    assert (out / "a.json").exists()
    assert (out / "b.json").stat().st_mtime_ns == stamp
    assert samserve(*arguments, "--overwrite").returncode == 0
    assert (out / "b.json").stat().st_mtime_ns > stamp


def test_done_is_what_the_record_says_and_what_is_missing_is_made(
    gateway_address: str, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def generate(*flags: str) -> str:
        done = samserve("generate", photos / "a.jpg", "--out", out, "--server", gateway_address, *LENIENT_FLAGS, *flags)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def record() -> Any:
        return json.loads((out / "a.json").read_text())

    assert "done already" not in generate()
    assert record()["info"]["parameters"] == LENIENT
    stamp = (out / "a.json").stat().st_mtime_ns
    assert "a.jpg: " in generate("--overlay")
    assert (out / "a.json").stat().st_mtime_ns == stamp
    with Image.open(out / "a.png") as overlay:
        assert overlay.size == (150, 100)
    for flags in ((), ("--overlay",), ("--points-per-batch", "3"), ("--box-nms-thresh", "0.7")):
        assert "1 of 1 photos are done already" in generate(*flags)
    assert "done already" not in generate("--points-per-side", "2")
    assert record()["info"]["parameters"] == {**LENIENT, "points_per_side": 2}
    # The overlay shows the masks of before.
    assert "done already" not in generate("--points-per-side", "2", "--overlay")
    assert "done already" in generate("--points-per-side", "2", "--overlay")
    with Image.open(photos / "a.jpg") as photo:
        photo.rotate(180).save(photos / "a.jpg")
    assert "done already" not in generate("--points-per-side", "2")
    for content in ("", json.dumps(record())[:200]):
        (out / "a.json").write_text(content)
        assert "done already" not in generate("--points-per-side", "2")


def test_what_other_programs_keep_beside_the_photos_is_left_alone(gateway_address: str, photos: Path) -> None:
    theirs = json.dumps({"version": "5.5.0", "shapes": [], "imagePath": "a.jpg"})
    (photos / "a.json").write_text(theirs)
    (photos / "._b.png").write_bytes(b"\0\5\x16\7")
    sizes = {photo: photo.stat().st_size for photo in photos.iterdir()}
    generate = ("generate", photos, "--out", photos, "--overlay", "--server", gateway_address, *LENIENT_FLAGS)
    for flags in ((), ("--overwrite",)):
        done = samserve(*generate, *flags)
        assert done.returncode == 2
        annotated, is_input, summary = done.stderr.splitlines()
        assert "a.json exists and was not written by samserve; write to another file, or add --force" in annotated
        assert "b.png is an input; write to another file, or add --force" in is_input
        assert summary == "samserve: 2 of 2 photos failed; see the errors above"
        assert {photo: photo.stat().st_size for photo in photos.iterdir()} == sizes
    assert samserve(*generate, "--force").returncode == 0
    assert "shapes" not in json.loads((photos / "a.json").read_text())


def test_a_batch_goes_on_after_photos_that_cannot_be_served(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for name, side in ((b"a.png", 40), (b"b.png", 250), (b"c.png", 600), (b"caf\xe9.png", 40)):
        pixels = noise.integers(0, 255, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(os.fsdecode(os.path.join(os.fsencode(folder), name)), "PNG")
    with gateway_process(tmp_path / "log", SAMSERVE_MAX_IMAGE_BYTES="131072") as address:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "samserve", "generate", folder, "--out", tmp_path / "out"),
                *("--server", address, *LENIENT_FLAGS),
            ],
            capture_output=True,
            # As a terminal in UTF-8 has it.
            env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
            timeout=240,
            check=False,
        )
    assert done.returncode == 2
    above, far_above, summary = done.stderr.splitlines()
    assert b"b.png: image.data: has" in above
    assert b"c.png: the request is larger than" in far_above
    assert summary == b"samserve: 2 of 4 photos failed; see the errors above"
    assert b"caf\xe9.png: " in done.stdout
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == [b"a.json", b"caf\xe9.json"]
    record = json.loads((tmp_path / "out" / os.fsdecode(b"caf\xe9.json")).read_text())
    assert record["image"]["file_name"] == "caf\ufffd.png"


def test_several_boxes_are_several_objects_with_masks_and_cutouts(
    gateway_address: str, photos: Path, tmp_path: Path
) -> None:
    segment = ("segment", photos / "a.jpg", "--server", gateway_address)
    boxes = ("--box", "10,10,70,60", "--box", "60,20,140,90")
    pictures = ("--out", tmp_path / "o.jpg", "--mask", tmp_path / "m.png", "--cutout", tmp_path / "c.png")
    done = samserve(*segment, *boxes, *pictures, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in sorted(tmp_path.glob("*.*"))] == ["c_1.png", "c_2.png", "m_1.png", "m_2.png", "o.jpg"]
    answer = json.loads(done.stdout)
    assert [prompt["box"] for prompt in answer["prompts"]] == [[10, 10, 70, 60], [60, 20, 140, 90]]
    for number, prompt in enumerate(answer["prompts"], start=1):
        mask = coco.decode(prompt["masks"][prompt["best"]]["rle"])
        with Image.open(tmp_path / f"m_{number}.png") as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.asarray(picture), mask * 255)
        x, y, width, height = (int(value) for value in coco.toBbox(prompt["masks"][0]["rle"]))
        with Image.open(tmp_path / f"c_{number}.png") as picture, Image.open(photos / "a.jpg") as photo:
            assert picture.mode == "RGBA"
            cut = np.asarray(picture)
            inside = mask[y : y + height, x : x + width].astype(bool)
            np.testing.assert_array_equal(cut[..., 3] > 0, inside)
            np.testing.assert_array_equal(cut[inside][:, :3], np.asarray(photo)[y : y + height, x : x + width][inside])
    with Image.open(tmp_path / "o.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (150, 100))
    alone = samserve(*segment, *boxes[:2], "--json", "--mask", tmp_path / "alone.png")
    assert json.loads(alone.stdout)["masks"] == answer["prompts"][0]["masks"]
    assert (tmp_path / "alone.png").exists()
    assert samserve(*segment, *boxes, *pictures).returncode == 0  # its own files it replaces
    normalized = samserve(*segment, "--normalized", "--box", "0,0,0.5,0.5", "--box", "0.5,0.5,1,1")
    assert "box 2" in normalized.stdout


def test_a_photo_with_nothing_that_passes_says_what_to_lower(
    gateway_address: str, photos: Path, tmp_path: Path
) -> None:
    done = samserve(
        *("generate", photos / "a.jpg", "--out", tmp_path / "out", "--server", gateway_address),
        *("--points-per-side", "2", "--pred-iou-thresh", "1", "--stability-score-thresh", "1"),
    )
    assert done.returncode == 0
    assert "0 masks: few masks pass the thresholds; for more, lower --pred-iou-thresh and" in done.stdout
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
        {"image_id": 9, "category_id": 17, "bbox": [-5, 20, 80, 60], "score": 0.75},
        {"image_id": 9, "category_id": 3, "bbox": [60, 10, 120.5, 80], "score": 0.5},
    ]
    boxes.write_text(json.dumps(detections))
    segment = ("segment", photos / "a.jpg", "--server", gateway_address, "--boxes", boxes)
    done = samserve(*segment, "--coco", out, "--out", overlay)
    assert (done.returncode, done.stderr) == (0, "")
    assert "150 x 100, 2 boxes" in done.stdout
    results = json.loads(out.read_text())
    assert [(r["image_id"], r["category_id"], r["score"]) for r in results] == [(9, 17, 0.75), (9, 3, 0.5)]
    for result in results:
        assert coco.decode(result["segmentation"]).shape == (100, 150)
        # With a box pycocotools' loadRes would make it the area.
        assert "bbox" not in result
    with Image.open(overlay) as picture:
        assert picture.size == (150, 100)
    assert json.loads(samserve(*segment, "--json").stdout) == results

    boxes.write_text(json.dumps([{"bbox": [200, 0, 10, 10]}]))
    refused = samserve(*segment, "--coco", out)
    assert refused.returncode == 2
    outside = "bbox [200, 0, 10, 10] lies outside the photo of 150 x 100 pixels"
    assert refused.stderr == f"samserve: {boxes}: entry 0: {outside}\n"
