"""Which boxes of a detector's file are about a photo, and which of them can be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from samserve.cli.detections import Detections, read_detections
from samserve.cli.errors import CommandFailed

SIZE = (200, 300)


def images(*named: tuple[int | str, str], width: int = 300) -> list[dict[str, Any]]:
    return [{"id": number, "file_name": name, "width": width, "height": 200} for number, name in named]


def entry(image_id: Any, x: float = 10, **others: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "bbox": [x, 10, 50, 40], "score": 0.5, **others}


def read(tmp_path: Path, content: Any, photo: str, image_id: str | None = None) -> Detections:
    path = tmp_path / "d.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_detections(path, Path(photo), SIZE, image_id)


LISTED = images((1, "000000.jpg"), (2, "000001.jpg"), (3, "street.jpg"))
DATA_SET = {"images": LISTED, "annotations": [entry(1, 1), entry(2, 2), entry(3, 3)]}


@pytest.mark.parametrize(("photo", "known"), [("000001.jpg", 2), ("000000.jpg", 1), ("sub/street.jpg", 3)])
def test_a_data_set_says_by_its_images_which_boxes_are_meant(photo: str, known: int, tmp_path: Path) -> None:
    (box,) = read(tmp_path, DATA_SET, photo).boxes
    assert (box.image_id, box.box[0]) == (known, known)


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    listed = images((1, "train/a.jpg"), (2, "val/a.jpg"), (3, "val\\b.jpg"))
    content = {"images": listed, "annotations": [entry(number) for number in (1, 2, 3)]}
    assert read(tmp_path, content, "/data/val/a.jpg").boxes[0].image_id == 2
    assert read(tmp_path, content, "/data/b.jpg").boxes[0].image_id == 3
    with pytest.raises(CommandFailed, match=r"lists 2 images called a\.jpg; give --image-id ID"):
        read(tmp_path, content, "/data/other/a.jpg")
    assert read(tmp_path, content, "/data/other/a.jpg", "1").boxes[0].image_id == 1


def test_a_photo_without_boxes_in_a_data_set_has_none(tmp_path: Path) -> None:
    content = {"images": LISTED, "annotations": [entry(1)]}
    assert read(tmp_path, content, "street.jpg") == Detections([], [])
    assert read(tmp_path, [], "street.jpg") == Detections([], [])


@pytest.mark.parametrize(
    ("content", "photo", "told"),
    [
        (DATA_SET, "other.jpg", "does not list other.jpg"),
        (DATA_SET, "2.jpg", "does not list 2.jpg"),
        (
            {"images": images((1, "a.jpg"), width=301), "annotations": []},
            "a.jpg",
            "about another photo: it says that a.jpg",
        ),
        ([entry(140)], "000000000139.jpg", "contains boxes of image 140, but none with the image_id 139"),
        ([entry("street")], "garden.jpg", "boxes of image street, but none with the image_id 'garden'"),
        ([entry(1), entry(2)], "street.jpg", "contains boxes of 2 images"),
        ([entry(1), entry(2)], "3.jpg", "contains boxes of 2 images"),
    ],
)
def test_a_file_about_other_photos_is_refused(content: Any, photo: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=told):
        read(tmp_path, content, photo)


@pytest.mark.parametrize(
    ("image_id", "photo"),
    [
        (139, "000000000139.jpg"),
        ("000000000139", "000000000139.jpg"),
        ("139", "000000000139.jpg"),
        (139, "COCO_val2014_000000000139.jpg"),
        ("street", "street.jpg"),
        ("street.jpg", "street.jpg"),
    ],
)
def test_results_are_matched_by_the_photos_name(image_id: Any, photo: str, tmp_path: Path) -> None:
    (box,) = read(tmp_path, [entry(image_id), entry("7"), entry("other")], photo).boxes
    assert box.image_id == image_id


def test_results_of_one_image_without_or_with_an_unrelated_number_are_taken(tmp_path: Path) -> None:
    assert read(tmp_path, [{"bbox": [1, 1, 5, 5]}], "street.jpg").boxes[0].image_id == "street"
    assert read(tmp_path, [entry(7)], "street.jpg").boxes[0].image_id == 7
    assert read(tmp_path, [entry(7), entry(8)], "street.jpg", "8").boxes[0].image_id == 8


BAD: dict[str, dict[str, Any]] = {
    "no height": {"bbox": [10, 10, 5, 0]},
    "negative width": {"bbox": [10, 10, -5, 5]},
    "outside": {"bbox": [-30, -20, 25, 10]},
    "not a number": {"bbox": [float("nan"), 0, 5, 5]},
    "infinite": {"bbox": [0, 0, float("inf"), 5]},
    "three numbers": {"bbox": [0, 0, 5]},
    "no box": {"bbox": None},
    "text": {"bbox": "0,0,5,5"},
    "score NaN": {"score": float("nan")},
    "score text": {"score": "high"},
    "category 1.5": {"category_id": 1.5},
    "category infinite": {"category_id": float("inf")},
    "category too large": {"category_id": 10**30},
}


@pytest.mark.parametrize("bad", BAD)
def test_an_entry_that_cannot_be_used_does_not_cost_the_others(bad: str, tmp_path: Path) -> None:
    found = read(tmp_path, [entry(1), entry(1, **BAD[bad]), entry(1, 20)], "1.jpg")
    assert [box.box[0] for box in found.boxes] == [10, 20]
    (sentence,) = found.skipped
    assert "d.json: entry 1: " in sentence
    with pytest.raises(CommandFailed, match="entry 0: "):
        read(tmp_path, [entry(1, **BAD[bad])], "1.jpg")


def test_what_is_not_known_of_a_box_is_its_default(tmp_path: Path) -> None:
    for unknown in ({"score": None, "category_id": None}, {}):
        (box,) = read(tmp_path, [{"image_id": 1, "bbox": [-5, 5, 400, 10], **unknown}], "1.jpg").boxes
        assert box.box == (0, 5, 300, 15)
        assert (box.detection.category_id, box.detection.score) == (1, 1.0)


@pytest.mark.parametrize("content", ["", "{", '"text"', "3", "[3]", "{}", '{"annotations": 3}', "[" * 100_000])
def test_what_is_not_in_cocos_format_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"d\.json"):
        read(tmp_path, content, "1.jpg")
