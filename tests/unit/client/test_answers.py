"""Responses and statuses become results and exceptions."""

from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from samserve.client import ClientError, InvalidRequest, ServerError
from tests.support.scripted_gateway import LOGITS, MASK, Failure, ScriptedGateway

SERVICE = "samserve.v1.SegmentationService"


def test_masks_arrive_in_the_images_own_pixels(client: Any) -> None:
    result = client.segment(b"image", [(1, 2)])
    assert result.masks.dtype == np.bool_
    assert result.masks.shape == (3, 6, 8)
    np.testing.assert_array_equal(result.masks[0], MASK)
    assert result.original_size == (6, 8)
    assert result.areas.tolist() == [15] * 3
    assert result.boxes.tolist() == [[2, 1, 7, 4]] * 3


def test_scores_and_the_best_mask(client: Any) -> None:
    result = client.segment(b"image", [(1, 2)])
    assert result.iou_predictions.tolist() == [0.25, 0.875, 0.5]
    assert result.stability_scores.tolist() == [0.75] * 3
    assert result.best == 1
    assert client.segment(b"image", [(1, 2)], multimask_output=False).masks.shape == (1, 6, 8)


def test_logits_are_float32_and_empty_where_not_asked_for(client: Any) -> None:
    result = client.segment(b"image", [(1, 2)])
    assert result.low_res_masks.dtype == np.float32
    np.testing.assert_array_equal(result.low_res_masks, np.stack([LOGITS] * 3))
    assert client.segment(b"image", [(1, 2)], low_res_masks=False).low_res_masks.shape == (3, 0, 0)


def test_results_carry_embedding_source_and_timings(client: Any) -> None:
    result = client.segment(b"image", [(1, 2)])
    assert (result.cached, result.embedding_source) == (True, "memory")
    assert result.timings.decode_seconds == pytest.approx(0.005)
    assert result.timings.round_trip_seconds > 0


def test_embed_returns_the_sizes(client: Any) -> None:
    embedded = client.embed(b"image")
    assert (embedded.original_size, embedded.input_size) == ((6, 8), (12, 16))
    assert (embedded.cached, embedded.embedding_source) == (False, "encoded")


def test_the_embedding_itself(client: Any) -> None:
    embedding = client.get_embedding(b"image")
    np.testing.assert_array_equal(embedding.values, LOGITS[None])
    assert embedding.values.dtype == np.float16
    assert (embedding.fingerprint, embedding.image.embedding_source) == ("sha256:model", "redis")


def test_the_server_introduces_itself(client: Any) -> None:
    info = client.server_info()
    assert (info.model, info.embedding_shape, info.low_res_size) == ("tiny", (256, 32, 32), 128)
    assert info.limits.max_prompts == 512


def test_the_servers_refusal_names_the_field(client: Any, gateway: ScriptedGateway) -> None:
    violation = BadRequest.FieldViolation(field="prompts[0].points[1].x", description="must be at most 8, got 99")
    detail = BadRequest(field_violations=[violation])
    gateway.failures.append(Failure(grpc.StatusCode.INVALID_ARGUMENT, "refused", (detail,)))
    with pytest.raises(InvalidRequest, match=r"prompts\[0\].points\[1\].x: must be at most 8") as caught:
        client.segment(b"image", [(1, 2)])
    assert caught.value.field == "prompts[0].points[1].x"
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (grpc.StatusCode.INTERNAL, "see the server's log"),
        (grpc.StatusCode.UNIMPLEMENTED, "does not implement this rpc"),
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    ],
)
def test_every_other_status_is_a_server_error_with_its_code(
    client: Any, gateway: ScriptedGateway, code: grpc.StatusCode, text: str
) -> None:
    gateway.failures.append(Failure(code))
    with pytest.raises(ServerError, match=text) as caught:
        client.server_info()
    assert caught.value.code == code.name
    assert isinstance(caught.value, ClientError)


@pytest.mark.parametrize(
    ("status", "expected"), [(HealthCheckResponse.SERVING, True), (HealthCheckResponse.NOT_SERVING, False)]
)
def test_health_is_the_services(client: Any, gateway: ScriptedGateway, status: Any, expected: bool) -> None:
    gateway.health.set(SERVICE, status)
    assert client.healthy() is expected


def test_a_server_that_cannot_be_reached_is_not_healthy(connect: Any) -> None:
    with connect("127.0.0.1:1") as client:
        assert client.healthy() is False
