"""Image upload: by id where the server may know the image, and as bytes once."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from samserve.client import ImageId, ImageNotFound, InvalidRequest
from samserve.client.channel import MAX_MESSAGE_BYTES
from samserve.client.image import PROBE_BYTES, ImageSource, KnownImages
from tests.support.scripted_gateway import ScriptedGateway

SMALL = b"a small file"
LARGE = bytes(PROBE_BYTES)


def test_a_small_unknown_image_is_sent_at_once(client: Any, gateway: ScriptedGateway) -> None:
    result = client.segment(SMALL, [(1, 2)])
    assert gateway.sources == ["data"]
    assert result.image_id == f"sha256:{hashlib.sha256(SMALL).hexdigest()}"


def test_an_image_is_sent_once_and_known_by_its_id_from_then_on(client: Any, gateway: ScriptedGateway) -> None:
    for _ in range(3):
        client.segment(SMALL, [(1, 2)])
    assert gateway.sources == ["data", "image_id", "image_id"]


def test_a_large_image_is_asked_for_by_its_id_before_it_is_uploaded(client: Any, gateway: ScriptedGateway) -> None:
    client.segment(LARGE, [(1, 2)])
    assert gateway.sources == ["image_id", "data"]


def test_a_large_image_that_another_client_sent_is_not_uploaded(client: Any, gateway: ScriptedGateway) -> None:
    gateway.known.add(ImageId.of(LARGE))
    client.segment(LARGE, [(1, 2)])
    assert gateway.sources == ["image_id"]


def test_an_image_that_the_server_forgot_is_uploaded_again(client: Any, gateway: ScriptedGateway) -> None:
    client.segment(SMALL, [(1, 2)])
    gateway.known.clear()
    client.segment(SMALL, [(1, 2)])
    assert gateway.sources == ["data", "image_id", "data"]


def test_the_answers_image_id_stands_for_the_image(client: Any, gateway: ScriptedGateway) -> None:
    embedded = client.embed(SMALL)
    client.segment(embedded.image_id, [(1, 2)])
    client.get_embedding(embedded.image_id)
    assert gateway.sources == ["data", "image_id", "image_id"]


def test_an_id_alone_that_the_server_does_not_know_is_an_error(client: Any, gateway: ScriptedGateway) -> None:
    with pytest.raises(ImageNotFound, match="no embedding cached"):
        client.segment(ImageId.of(SMALL), [(1, 2)])
    assert gateway.sources == ["image_id"]


def test_a_path_is_read(client: Any, gateway: ScriptedGateway, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(SMALL)
    client.segment(path, [(1, 2)])
    client.segment(str(path), [(1, 2)])
    assert gateway.requests[0].image.data == SMALL
    assert gateway.sources == ["data", "image_id"]


def test_a_missing_file_raises_as_open_does(client: Any, gateway: ScriptedGateway, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.segment(tmp_path / "missing.jpg", [(1, 2)])
    assert not gateway.requests


def test_pixels_travel_without_loss_and_always_as_the_same_file() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 21, 3), dtype=np.uint8)
    source = ImageSource.of(pixels)
    assert source == ImageSource.of(np.asfortranarray(pixels))
    assert source.data is not None
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(source.data))), pixels)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
    ids=["grey", "alpha", "float", "empty"],
)
def test_arrays_of_other_shapes_are_refused_with_the_expected_one(pixels: npt.NDArray[Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"uint8 \[H, W, 3\]"):
        ImageSource.of(pixels)


def test_a_file_that_no_message_holds_is_refused_before_it_is_sent(client: Any, gateway: ScriptedGateway) -> None:
    with pytest.raises(InvalidRequest, match="image: has 67108864 bytes"):
        client.segment(bytes(MAX_MESSAGE_BYTES), [(1, 2)])
    assert not gateway.requests


def test_the_images_used_least_lately_are_forgotten_first() -> None:
    first, second, third = (ImageId.of(bytes([n])) for n in range(3))
    known = KnownImages(capacity=2)
    for image_id in (first, second, first, third):
        known.add(image_id)
    assert [image_id in known for image_id in (first, second, third)] == [True, False, True]
