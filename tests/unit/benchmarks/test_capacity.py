"""Capacity on paper: the cache against a simulated LRU, the queues against closed forms, plans against common sense."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.capacity import (
    Costs,
    Demand,
    che_hit_rate,
    erlang_c,
    lru_hit_rate,
    plan,
    servers_for,
    wait_p99,
    zipf_bins,
)

DEMAND = Demand(images_per_day=1e6, prompts_per_image=8, gaze_streams=100)


@settings(max_examples=15, deadline=None)
@given(st.integers(200, 3000), st.floats(0.4, 1.4), st.floats(0.02, 0.9), st.integers(0, 1000))
def test_ches_approximation_agrees_with_a_simulated_lru(
    catalogue: int, exponent: float, cached: float, seed: int
) -> None:
    capacity = max(5, round(cached * catalogue))
    weights = np.arange(1, catalogue + 1, dtype=np.float64) ** -exponent
    shares = weights / weights.sum()
    keys = np.random.default_rng(seed).choice(catalogue, 40_000, p=shares).tolist()
    simulated = lru_hit_rate(capacity, iter(keys), 20_000)
    assert abs(che_hit_rate(capacity, *zipf_bins(catalogue, exponent)) - simulated) < 0.02


@settings(deadline=None)
@given(st.integers(1001, 50_000), st.floats(0.3, 1.5), st.floats(0.001, 0.99))
def test_classes_of_ranks_stand_for_the_single_ones(catalogue: int, exponent: float, cached: float) -> None:
    weights = np.arange(1, catalogue + 1, dtype=np.float64) ** -exponent
    exact = che_hit_rate(cached * catalogue, np.ones(catalogue), weights / weights.sum())
    counts, shares = zipf_bins(catalogue, exponent, bins=500)
    assert counts.sum() == catalogue
    assert abs(che_hit_rate(cached * catalogue, counts, shares) - exact) < 0.005


def test_a_cache_of_everything_always_hits_and_one_of_nothing_never() -> None:
    popularity = zipf_bins(1e6, 0.8)
    assert che_hit_rate(1e6, *popularity) == 1
    assert che_hit_rate(0, *popularity) == 0


@given(st.floats(0.01, 0.99))
def test_one_server_is_waited_for_as_often_as_it_is_busy(load: float) -> None:
    assert math.isclose(erlang_c(1, load), load)


@given(st.floats(0.01, 1.99))
def test_two_servers_are_waited_for_as_the_closed_form_says(load: float) -> None:
    assert math.isclose(erlang_c(2, load), load**2 / (2 + load), rel_tol=1e-9)


@settings(deadline=None)
@given(st.floats(0.1, 300), st.floats(0, 4), st.floats(0.01, 10))
def test_no_fewer_servers_keep_the_budget(load: float, variation: float, budget: float) -> None:
    count = servers_for(load, 1.0, budget, variation)
    assert wait_p99(count, load, 1.0, variation) <= budget
    assert wait_p99(count - 1, load, 1.0, variation) > budget or count == 1


def test_a_larger_cache_saves_encoders_and_costs_shards() -> None:
    small, large = (plan(replace(DEMAND, images_per_day=1e8, cached_share=share), Costs()) for share in (0.01, 0.3))
    assert large.hit_rate > small.hit_rate
    assert large.count("encoder GPUs") < small.count("encoder GPUs")
    assert large.count("Redis shards, memory") > small.count("Redis shards, memory")


@pytest.mark.parametrize("grown", [{"images_per_day": 1e7}, {"prompts_per_image": 80}, {"gaze_streams": 10_000}])
def test_capacity_never_falls_as_demand_grows(grown: dict[str, float]) -> None:
    before, after = plan(DEMAND, Costs()), plan(replace(DEMAND, **grown), Costs())
    assert all(more.count >= less.count for less, more in zip(before.needs, after.needs, strict=True))
    assert any(more.count > less.count for less, more in zip(before.needs, after.needs, strict=True))
