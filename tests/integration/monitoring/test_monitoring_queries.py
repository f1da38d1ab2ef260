"""Rules and dashboard ask for what real gateways and a real Triton export, and a real Prometheus answers."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.request import urlopen

import pytest
import yaml

from benchmarks.dashboard_picture import DASHBOARD, Board, fill_in
from benchmarks.prometheus import Prometheus, QueryRefused
from k8s.monitoring.prometheus_rule import FOLDER as MONITORING
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, Served, photo, serving
from tests.support.redis_server import RedisServer
from tests.support.triton_server import TritonServer

EVENTUAL_SECONDS = 120.0
OF_PROMETHEUS_ITSELF = {"up", "ALERTS"}

RULES = [
    rule
    for name in ("recording-rules.yaml", "alert-rules.yaml")
    for group in yaml.safe_load((MONITORING / name).read_text())["groups"]
    for rule in group["rules"]
]
SLOS = {rule["labels"]["slo"] for rule in RULES if rule.get("record") == "slo:samserve_objective:ratio"}
PANELS = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def asked(expressions: list[str]) -> set[str]:
    """The names of the metrics in them. Of all words only metrics' are followed by matchers, and those of the project
    and of Triton begin as they do."""
    text = "\n".join(expressions)
    with_matchers = re.findall(r"([a-zA-Z_:][\w:]*)\{", text)
    bare = re.findall(r"(?<![\w:])(?:samserve_|nv_|[a-z_]+:samserve_)[\w:]+", text)
    return {*with_matchers, *bare} - OF_PROMETHEUS_ITSELF


def exported(address: str) -> set[str]:
    """The names of the samples on a page of metrics."""
    with urlopen(f"http://{address}/metrics", timeout=30) as answer:
        return set(re.findall(r"^(\w+)[{ ]", answer.read().decode(), re.MULTILINE))


async def gaze() -> AsyncIterator[pb.SegmentGazeRequest]:
    yield pb.SegmentGazeRequest(config=pb.GazeConfig())
    yield pb.SegmentGazeRequest(frame=pb.GazeFrame(sequence=1, image=pb.Image(data=photo(1))))
    for sequence in range(5):
        await asyncio.sleep(0.05)
        sample = pb.GazeSample(sequence=sequence, timestamp_nanoseconds=sequence * 50_000_000, x=20, y=15, valid=True)
        yield pb.SegmentGazeRequest(sample=sample)


async def use(served: Served) -> None:
    """Prompts on known and new images, and somebody looking at one, until cancelled."""
    seed = 0
    while True:
        seed += 1
        for each in (1, seed):
            await served.stub.Segment(pb.SegmentRequest(image=pb.Image(data=photo(each)), prompts=[PNG_CLICK]))
        async for _ in served.stub.SegmentGaze(gaze()):
            pass


@asynccontextmanager
async def in_use(served: Served) -> AsyncIterator[None]:
    using = asyncio.create_task(use(served))
    yield
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using


def open_questions(prometheus: Prometheus) -> list[str]:
    """Panels' expressions without an answer, objectives without events, rules not evaluated or that cannot be."""
    panels = [
        f"{panel['title']}: {target['expr']}"
        for panel in PANELS
        for target in panel["targets"]
        if not prometheus.query(fill_in(target["expr"], minutes=5, scrape_seconds=5))
    ]
    # Matchers of buckets and of labels' values would make these empty if nothing had such.
    measured = prometheus.query("namespace_slo:samserve_bad_events:rate5m and namespace_slo:samserve_events:rate5m > 0")
    unmeasured = SLOS - {series.labels["slo"] for series in measured}
    rules = [
        f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}"
        for group in prometheus.get("rules")["groups"]
        for rule in group["rules"]
        if rule["health"] != "ok"
    ]
    return [*panels, *unmeasured, *rules]


async def test_every_metric_is_exported_and_every_panel_and_rule_has_its_answer(
    triton: TritonServer, redis_server: RedisServer, prometheus: Callable[[Mapping[str, str]], Prometheus]
) -> None:
    settings = {"memory_cache_bytes": 8 << 20, "triton_scratch_bytes": 16 << 20}
    async with serving(
        backend="triton", triton=triton.address, redis_url=redis_server.url, metrics_port=0, **settings
    ) as served:
        gateway = f"127.0.0.1:{served.gateway.metrics_port}"
        recorded = {rule["record"] for rule in RULES if "record" in rule}
        expressions = [rule["expr"] for rule in RULES] + [
            target["expr"] for panel in PANELS for target in panel["targets"]
        ]
        known = await asyncio.to_thread(lambda: exported(gateway) | exported(triton.metrics_address))
        assert asked(expressions) <= known | recorded

        reader = await asyncio.to_thread(
            prometheus, {"samserve-gateway": gateway, "samserve-triton": triton.metrics_address}
        )
        deadline = time.monotonic() + EVENTUAL_SECONDS
        async with in_use(served):
            while (missing := await asyncio.to_thread(open_questions, reader)) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        assert missing == []

        board = Board(reader, minutes=1, until=time.time(), scrape_seconds=0.5)
        figure = await asyncio.to_thread(board.draw, PANELS)
        drawn = {axes.get_title(loc="left"): axes for axes in figure.axes}
        assert drawn.keys() == {panel["title"] for panel in PANELS}
        assert not [title for title, axes in drawn.items() if not axes.texts and not axes.child_axes[0].lines]


async def test_an_invalid_expression_is_rejected(
    prometheus: Callable[[Mapping[str, str]], Prometheus],
) -> None:
    reader = await asyncio.to_thread(prometheus, {})
    with pytest.raises(QueryRefused, match="parse error"):
        reader.query("sum by (")
