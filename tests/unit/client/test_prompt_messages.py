"""Prompts as SAM's users write them become the request's messages, or an error that names the argument."""

from typing import Any

import numpy as np
import pytest

from samserve.client import AsyncClient, Client, InvalidRequest, Prompt
from samserve.client.generation import generation_call
from samserve.v1 import segmentation_pb2 as pb
from tests.support.scripted_gateway import ScriptedGateway


def test_points_labels_and_box_arrive_as_given(client: Any, gateway: ScriptedGateway) -> None:
    client.segment(b"image", [(1.5, 2), (3, 4)], [1, 0], box=[0, 1, 5, 6], multimask_output=False)
    (request,) = gateway.requests
    assert request.prompts[0] == pb.Prompt(
        points=[
            pb.Point(x=1.5, y=2, label=pb.POINT_LABEL_FOREGROUND),
            pb.Point(x=3, y=4, label=pb.POINT_LABEL_BACKGROUND),
        ],
        box=pb.Box(x0=0, y0=1, x1=5, y1=6),
    )
    assert not request.multimask_output
    assert request.coordinate_space == pb.COORDINATE_SPACE_PIXELS
    assert request.mask_format == pb.MASK_FORMAT_COCO_RLE


def test_points_without_labels_are_foreground(client: Any, gateway: ScriptedGateway) -> None:
    client.segment(b"image", np.array([[1, 2], [3, 4]]))
    assert [point.label for point in gateway.requests[0].prompts[0].points] == [pb.POINT_LABEL_FOREGROUND] * 2


def test_normalized_coordinates_are_named_so(client: Any, gateway: ScriptedGateway) -> None:
    client.segment(b"image", [(0.5, 0.5)], normalized=True)
    assert gateway.requests[0].coordinate_space == pb.COORDINATE_SPACE_NORMALIZED


def test_an_answers_logits_refine_it(client: Any, gateway: ScriptedGateway) -> None:
    first = client.segment(b"image", [(1, 2)])
    client.segment(b"image", [(1, 2)], mask_input=first.low_res_masks[first.best])
    client.segment(b"image", [(1, 2)], mask_input=first.low_res_masks[[first.best]])
    sent = [request.prompts[0].mask_input for request in gateway.requests[1:]]
    assert sent[0] == sent[1]
    assert sent[0].size == 4
    np.testing.assert_array_equal(np.frombuffer(sent[0].data, "<f2").reshape(4, 4), first.low_res_masks[first.best])


def test_logits_beyond_float16_are_the_largest_that_travel(client: Any, gateway: ScriptedGateway) -> None:
    client.segment(b"image", mask_input=np.array([[1e9, -np.inf], [0, 1]]))
    sent = gateway.requests[0].prompts[0].mask_input
    np.testing.assert_array_equal(np.frombuffer(sent.data, "<f2"), np.array([65504, -65504, 0, 1], np.float16))


def test_many_prompts_travel_in_one_request(client: Any, gateway: ScriptedGateway) -> None:
    results = client.segment_many(b"image", [Prompt([(1, 2)]), Prompt(box=[0, 0, 2, 2])])
    assert len(gateway.requests) == 1
    assert len(results) == 2
    assert not gateway.requests[0].include_low_res_masks


def test_the_tenant_goes_with_every_call(connect: Any, gateway: ScriptedGateway) -> None:
    with connect(gateway.address, tenant="acme") as client:
        client.segment(b"image", [(1, 2)])
    assert gateway.metadata[0]["samserve-tenant"] == "acme"


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        (Prompt(point_coords=(1, 2)), "point_coords"),
        (Prompt(point_coords=[(1, 2, 3)]), "point_coords"),
        (Prompt(point_coords=[("left", "top")]), "point_coords"),
        (Prompt(point_coords=[(1, 2)], point_labels=[1, 0]), "point_labels"),
        (Prompt(point_coords=[(1, 2)], point_labels=[2]), "point_labels"),
        (Prompt(point_labels=[1]), "point_labels"),
        (Prompt(box=[(0, 0), (1, 1)]), "box"),
        (Prompt(mask_input=np.zeros((3, 4))), "mask_input"),
        (Prompt(mask_input=np.zeros((3, 4, 4))), "mask_input"),
    ],
)
def test_a_malformed_argument_is_named_before_anything_is_sent(
    client: Any, gateway: ScriptedGateway, prompt: Prompt, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.segment_many(b"image", [prompt])
    assert caught.value.field == field
    assert not gateway.requests


@pytest.mark.parametrize("tenant", ["ü", "a\nb", "x" * 1025])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_tenant_that_cannot_be_sent_is_named(kind: type[Client | AsyncClient], tenant: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        kind("127.0.0.1:1", tenant=tenant)
    assert caught.value.field == "tenant"


@pytest.mark.parametrize(
    "wrong", [{"points_per_side": -1}, {"crop_n_layers": 1 << 40}, {"pred_iou_thresh": "high"}, {"points": 32}]
)
def test_a_generation_parameter_that_cannot_be_sent_is_named(wrong: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        generation_call(box_nms_thresh=0.5, **wrong)
    assert caught.value.field == next(iter(wrong))


def test_text_goes_alone_and_asks_for_no_logits(client: Any, gateway: ScriptedGateway) -> None:
    client.segment(b"image", text="a dog")
    (request,) = gateway.requests
    assert request.prompts[0] == pb.Prompt(text="a dog")
    assert request.image.data == b"image"
    assert not request.include_low_res_masks
