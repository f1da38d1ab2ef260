"""Parts of the stack killed and started again under load: what callers get, and what Prometheus tells of it."""

import signal

import pytest

from samserve.client import Client, Unavailable
from stack.configs import GATEWAY_JOB, TRITON_JOB
from stack.ports import address
from stack.probes import envoy_knows, grpc_serves, query
from stack.stack import Stack
from tests.support.gateway import photo
from tests.support.whole_stack import POINT, answered, calling, eventually, eventually_in_prometheus

START_SECONDS = 120.0
GATEWAYS_UP = f'sum(up{{job="{GATEWAY_JOB}"}})'
MODELS_READY = "sum(samserve_models_ready)"
BREAKERS_OPEN = "sum(samserve_redis_breaker_open)"


def start_again(stack: Stack, name: str) -> None:
    stack.components[name].start()
    stack.components[name].await_serving(START_SECONDS)


def eventually_envoy_knows(stack: Stack, gateways: int) -> None:
    eventually(lambda: envoy_knows(stack.ports.envoy_admin, gateways), f"Envoy has {gateways} gateways")


def image_at(stack: Stack, client: Client, gateway: int) -> int:
    """The seed of a new photo whose calls go to this gateway."""
    for seed in range(400, 500):
        before = answered(stack, "EmbedImage")
        client.embed(photo(seed))
        if answered(stack, "EmbedImage") - before == {gateway: 1}:
            return seed
    raise AssertionError("no image of a hundred goes there")


def test_a_gateway_that_is_killed_costs_no_call_and_its_images_move_to_the_other(
    whole_stack: Stack, client: Client
) -> None:
    seed = image_at(whole_stack, client, 1)
    with calling(address(whole_stack.ports.envoy)) as callers:
        callers.go_on()
        whole_stack.components["gateway-2"].kill()
        callers.go_on()
        eventually_envoy_knows(whole_stack, 1)
        eventually_in_prometheus(whole_stack, GATEWAYS_UP, lambda up: up == 1)
        # From Redis: the gateway that takes over need not encode it.
        assert [client.segment(photo(seed), POINT).embedding_source for _ in range(2)] == ["redis", "memory"]
        start_again(whole_stack, "gateway-2")
        eventually_envoy_knows(whole_stack, 2)
        callers.go_on()
    assert not callers.errors
    before = answered(whole_stack, "Segment")
    client.segment(photo(seed), POINT)
    assert answered(whole_stack, "Segment") - before == {1: 1}
    eventually_in_prometheus(whole_stack, GATEWAYS_UP, lambda up: up == 2)


def test_a_gateway_that_is_told_to_stop_ends_the_calls_in_flight_and_costs_none(whole_stack: Stack) -> None:
    gateway = whole_stack.components["gateway-1"]
    progress: list[int] = []

    def stop_at_first(done: int, total: int) -> None:
        if not progress:
            gateway.signal(signal.SIGTERM)
        progress.append(done)

    with calling(address(whole_stack.ports.envoy)) as callers, Client(address(whole_stack.ports.gateways[0])) as direct:
        callers.go_on()
        masks = direct.generate_masks(
            photo(1, (96, 128)), on_progress=stop_at_first, points_per_side=8, points_per_batch=4
        )
        list(masks)
        assert progress[-1] == 64
        assert gateway.wait(START_SECONDS) == 0
        callers.go_on()
        start_again(whole_stack, "gateway-1")
        eventually_envoy_knows(whole_stack, 2)
        callers.go_on()
    assert not callers.errors


def test_redis_killed_costs_no_call(whole_stack: Stack) -> None:
    with calling(address(whole_stack.ports.envoy)) as callers:
        callers.go_on()
        whole_stack.components["redis"].kill()
        callers.go_on()
        eventually_in_prometheus(whole_stack, BREAKERS_OPEN, lambda breakers: breakers == 2)
        start_again(whole_stack, "redis")
        eventually_in_prometheus(whole_stack, BREAKERS_OPEN, lambda breakers: breakers == 0)
        callers.go_on()
    assert not callers.errors
    counted = 'sum(samserve_redis_calls_total{outcome="error"})'
    eventually_in_prometheus(whole_stack, counted, lambda errors: errors > 0)


def test_triton_killed_is_unavailable_and_its_return_needs_no_new_gateway(whole_stack: Stack, client: Client) -> None:
    known = photo(500)
    client.embed(known)
    gateways = [component for name, component in whole_stack.components.items() if name.startswith("gateway")]
    pids = [gateway.pid for gateway in gateways]
    triton = whole_stack.components["triton"]
    triton.kill()
    eventually(lambda: not client.healthy(), "the gateways say that they do not serve")
    with pytest.raises(Unavailable) as raised:
        client.segment(known, POINT)
    assert raised.value.retry_after_seconds
    assert all(grpc_serves(port, "liveness") for port in whole_stack.ports.gateways)
    eventually(
        lambda: not any(query(whole_stack.ports.prometheus, f'up{{job="{TRITON_JOB}"}}').values()),
        "Prometheus misses Triton",
    )
    eventually_in_prometheus(whole_stack, MODELS_READY, lambda ready: ready == 0)
    start_again(whole_stack, "triton")
    eventually_envoy_knows(whole_stack, 2)
    eventually_in_prometheus(whole_stack, MODELS_READY, lambda ready: ready == 2)
    assert client.segment(known, POINT).embedding_source == "memory"
    for gateway, pid in zip(gateways, pids, strict=True):
        gateway.check()
        assert gateway.pid == pid
    unavailable = 'sum(samserve_requests_total{rpc="Segment",code="UNAVAILABLE"})'
    eventually_in_prometheus(whole_stack, unavailable, lambda count: count > 0)
