"""The client and a real gateway: what each method promises, whatever the weights."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from samserve.client import AsyncClient, Client, ImageId, ImageNotFound, InvalidRequest, Prompt
from tests.support.gateway_process import PHOTO

POINT = [(300.0, 200.0)]
BOX = (150.0, 100.0, 450.0, 300.0)


@pytest.fixture
def client(gateway_address: str) -> Iterator[Client]:
    with Client(gateway_address) as connected:
        yield connected


def test_masks_have_the_photos_size_and_match_their_own_box_and_area(client: Client) -> None:
    result = client.segment(PHOTO, POINT)
    assert result.masks.shape == (3, 400, 600)
    assert result.areas.tolist() == result.masks.sum(axis=(1, 2)).tolist()
    for mask, box in zip(result.masks, result.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_second_prompt_on_an_image_skips_the_encoder(client: Client) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    cold, warm = client.segment(pixels, [(10, 10)]), client.segment(pixels, [(20, 20)])
    assert (cold.embedding_source, cold.cached, warm.embedding_source, warm.cached) == (
        "encoded",
        False,
        "memory",
        True,
    )
    assert cold.timings.encode_seconds > 0
    assert warm.timings.encode_seconds == 0
    assert warm.timings.round_trip_seconds >= warm.timings.total_seconds > 0


def test_path_bytes_and_id_are_the_same_image(client: Client) -> None:
    by_path, by_bytes = client.segment(PHOTO, POINT), client.segment(PHOTO.read_bytes(), POINT)
    by_id = client.segment(by_path.image_id, POINT)
    assert by_path.image_id == by_bytes.image_id == by_id.image_id == ImageId.of(PHOTO.read_bytes())
    np.testing.assert_array_equal(by_path.masks, by_bytes.masks)
    np.testing.assert_array_equal(by_path.masks, by_id.masks)


def test_pixels_give_the_masks_of_the_file_that_they_come_from(client: Client) -> None:
    with Image.open(PHOTO) as photo:
        pixels = np.asarray(photo)
    np.testing.assert_array_equal(client.segment(pixels, POINT).masks, client.segment(PHOTO, POINT).masks)


def test_normalized_coordinates_are_fractions_of_the_sides(client: Client) -> None:
    in_pixels = client.segment(PHOTO, POINT, box=BOX)
    normalized = client.segment(PHOTO, [(0.5, 0.5)], box=(0.25, 0.25, 0.75, 0.75), normalized=True)
    np.testing.assert_array_equal(in_pixels.masks, normalized.masks)


def test_many_prompts_at_once_give_what_each_gives_alone(client: Client) -> None:
    prompts = [Prompt(POINT), Prompt(box=BOX), Prompt([(10, 10), (300, 200)], [0, 1], BOX)]
    together = client.segment_many(PHOTO, prompts, multimask_output=False)
    alone = [client.segment_many(PHOTO, [prompt], multimask_output=False)[0] for prompt in prompts]
    for one, other in zip(together, alone, strict=True):
        assert np.mean(one.masks != other.masks) < 0.001
        np.testing.assert_allclose(one.iou_predictions, other.iou_predictions, atol=1e-3)


def test_an_answers_logits_refine_the_prompt(client: Client) -> None:
    info, first = client.server_info(), client.segment(PHOTO, POINT)
    assert first.low_res_masks.shape == (3, info.low_res_size, info.low_res_size)
    mask_input = first.low_res_masks[first.best]
    refined = client.segment(PHOTO, POINT, mask_input=mask_input, multimask_output=False)
    assert refined.masks.shape == (1, 400, 600)


def test_embed_and_the_embedding_itself(client: Client) -> None:
    info, embedded, embedding = client.server_info(), client.embed(PHOTO), client.get_embedding(PHOTO)
    assert embedded.original_size == (400, 600)
    assert max(embedded.input_size) == info.image_size
    assert embedding.values.shape == info.embedding_shape
    assert embedding.fingerprint == info.fingerprint


def test_tenants_do_not_see_each_others_images(client: Client, gateway_address: str) -> None:
    image_id = client.embed(PHOTO).image_id
    with Client(gateway_address, tenant="other") as other, pytest.raises(ImageNotFound):
        other.segment(image_id, POINT)


@pytest.mark.parametrize(
    ("image", "prompt", "field"),
    [
        (PHOTO, Prompt([(700, 20)]), "prompts[0].points[0].x"),
        (PHOTO, Prompt([(np.nan, 20)]), "prompts[0].points[0].x"),
        (PHOTO, Prompt(box=(9, 9, 1, 1)), "prompts[0].box.x1"),
        (PHOTO, Prompt(), "prompts[0]"),
        (b"no image", Prompt(POINT), "image.data"),
    ],
)
def test_the_server_names_the_field_that_it_refuses(client: Client, image: str, prompt: Prompt, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.segment_many(image, [prompt])
    assert caught.value.field == field


async def test_the_asynchronous_client_gives_the_same(client: Client, gateway_address: str) -> None:
    async with AsyncClient(gateway_address) as asynchronous:
        assert await asynchronous.healthy()
        result = await asynchronous.segment(PHOTO, POINT)
    np.testing.assert_array_equal(result.masks, client.segment(PHOTO, POINT).masks)
