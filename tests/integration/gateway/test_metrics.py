"""Metrics of a gateway as Prometheus reads them, over HTTP, after real calls."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

import grpc
import pytest

from samserve.adapters.grpc.errors import status_code
from samserve.domain import errors
from samserve.domain.manifest import ModelManifest
from samserve.gateway.settings import default_model_repository
from samserve.observability.metrics.scrapes import ScrapeHandler
from samserve.usecases.observers import GATEWAY_CODES, GAZE_FRAME_OUTCOMES
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import LARGE, PNG_CLICK, Served, photo, refusal, serving
from tests.support.model_gate import ModelGate
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually, settled

Values = dict[str, float]


def page(served: Served) -> str:
    with urlopen(f"http://127.0.0.1:{served.gateway.metrics_port}/metrics") as answer:
        text: str = answer.read().decode()
        return text


async def scrape(served: Served) -> Values:
    """By name and labels as the page has them: `name{a="value",b="value"}`, labels in alphabetical order."""
    lines = (line for line in (await asyncio.to_thread(page, served)).splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def scraped(served: Served, condition: Callable[[Values], bool]) -> Values:
    """What is exported once a condition on it holds."""
    pages: list[Values] = []

    async def holds() -> bool:
        pages.append(await scrape(served))
        return condition(pages[-1])

    await eventually(holds, seconds=60)
    return pages[-1]


STAGES = ("cache", "image_decode", "queue", "encode", "mask_decode", "post_process")


def changes(before: Values, after: Values) -> Values:
    """What went up or down, the figures of the process and the buckets of histograms left out."""
    return {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if value != before.get(name, 0) and not any(part in name for part in ("_bucket", "seconds_sum", "process_"))
    }


def segment(data: bytes, prompts: int = 1) -> pb.SegmentRequest:
    return pb.SegmentRequest(image=pb.Image(data=data), prompts=[PNG_CLICK] * prompts)


async def test_cold_and_warm_requests_are_counted_separately() -> None:
    async with serving(metrics_port=0) as served:
        fresh = await scrape(served)
        await served.stub.Segment(segment(photo(1), prompts=3))
        cold = await scrape(served)
        memory_bytes = ModelManifest.read(default_model_repository()).embedding_bytes
        assert changes(fresh, cold) == {
            'samserve_requests_total{code="OK",rpc="Segment"}': 1,
            'samserve_request_seconds_count{embedding="cold",rpc="Segment"}': 1,
            'samserve_stage_seconds_count{stage="image_decode"}': 1,
            'samserve_stage_seconds_count{stage="cache"}': 1,
            'samserve_stage_seconds_count{stage="queue"}': 2,
            'samserve_stage_seconds_count{stage="encode"}': 1,
            'samserve_stage_seconds_count{stage="mask_decode"}': 1,
            'samserve_stage_seconds_count{stage="post_process"}': 1,
            'samserve_embeddings_total{source="encoded"}': 1,
            "samserve_memory_cache_entries": 1,
            "samserve_memory_cache_bytes": memory_bytes,
            "samserve_prompts_per_request_count": 1,
            "samserve_prompts_per_request_sum": 3,
        }
        await served.stub.Segment(segment(photo(1)))
        assert changes(cold, await scrape(served)) == {
            'samserve_requests_total{code="OK",rpc="Segment"}': 1,
            'samserve_request_seconds_count{embedding="warm",rpc="Segment"}': 1,
            'samserve_stage_seconds_count{stage="cache"}': 1,
            'samserve_stage_seconds_count{stage="queue"}': 1,
            'samserve_stage_seconds_count{stage="mask_decode"}': 1,
            'samserve_stage_seconds_count{stage="post_process"}': 1,
            'samserve_embeddings_total{source="memory"}': 1,
            "samserve_encodes_avoided_total": 1,
            "samserve_prompts_per_request_count": 1,
            "samserve_prompts_per_request_sum": 1,
        }


async def test_stages_add_up_to_no_more_than_the_calls_took() -> None:
    async with serving(metrics_port=0) as served:
        for seed in (1, 2, 1):
            await served.stub.Segment(segment(photo(seed, LARGE)))
        now = await scrape(served)
        stages = {stage: now[f'samserve_stage_seconds_sum{{stage="{stage}"}}'] for stage in STAGES}
        # No prompt of these was a text.
        assert now['samserve_stage_seconds_sum{stage="rank"}'] == 0
        assert [stage for stage, seconds in stages.items() if seconds <= 0] == []
        took = sum(value for name, value in now.items() if name.startswith("samserve_request_seconds_sum"))
        assert sum(stages.values()) <= took


async def test_followers_and_the_encodes_that_they_avoid(encoder_gate: ModelGate) -> None:
    async with serving(metrics_port=0) as served:
        encoder_gate.shut()
        calls = [asyncio.ensure_future(served.stub.Segment(segment(photo(1)))) for _ in range(8)]
        await eventually(lambda: served.counted("samserve_in_flight", limit="requests") == 8)
        await settled()
        encoder_gate.open()
        await asyncio.gather(*calls)
        now = await scrape(served)
        assert now['samserve_embeddings_total{source="encoded"}'] == 1
        cached = now['samserve_embeddings_total{source="memory"}']
        assert cached == 0
        assert now["samserve_single_flight_followers_total"] == 7
        assert now["samserve_encodes_avoided_total"] == 7
        warm, cold = (
            now[f'samserve_request_seconds_count{{embedding="{label}",rpc="Segment"}}'] for label in ("warm", "cold")
        )
        assert (warm, cold) == (cached, 8 - cached)


async def test_refused_calls_change_only_request_metrics() -> None:
    async with serving(metrics_port=0) as served:
        fresh = await scrape(served)
        await refusal(served.stub.Segment(segment(b"hello")))
        await refusal(served.stub.EmbedImage(pb.EmbedImageRequest(image=pb.Image(image_id="sha256:" + "0" * 64))))
        assert changes(fresh, await scrape(served)) == {
            'samserve_requests_total{code="INVALID_ARGUMENT",rpc="Segment"}': 1,
            'samserve_request_seconds_count{embedding="none",rpc="Segment"}': 1,
            'samserve_requests_total{code="NOT_FOUND",rpc="EmbedImage"}': 1,
            'samserve_request_seconds_count{embedding="none",rpc="EmbedImage"}': 1,
        }


async def test_shed_calls_are_counted_by_reason_and_queue_length_is_exported(encoder_gate: ModelGate) -> None:
    limits = {"requests": 7, "encodes": 4, "generations": 1, "streams": 2}
    settings = {f"max_{limit}": places for limit, places in limits.items()}
    async with serving(metrics_port=0, image_decode_workers=1, **settings) as served:
        fresh = await scrape(served)
        assert {limit: fresh[f'samserve_in_flight_max{{limit="{limit}"}}'] for limit in limits} == limits
        encoder_gate.shut()
        calls = [asyncio.ensure_future(served.stub.Segment(segment(photo(seed)))) for seed in range(4)]
        await scraped(served, lambda seen: seen["samserve_queued"] == 3)
        # Three more places among the requests, and none among the encodes.
        followers = [asyncio.ensure_future(served.stub.Segment(segment(photo(0)))) for _ in range(2)]
        await scraped(served, lambda seen: seen['samserve_in_flight{limit="requests"}'] == 6)
        assert (await refusal(served.stub.Segment(segment(photo(4))))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        followers.append(asyncio.ensure_future(served.stub.Segment(segment(photo(0)))))
        await scraped(served, lambda seen: seen['samserve_in_flight{limit="requests"}'] == 7)
        assert (await refusal(served.stub.Segment(segment(photo(0))))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        encoder_gate.open()
        await asyncio.gather(*calls, *followers)
        now = await scrape(served)
        assert now['samserve_shed_total{reason="encodes"}'] == now['samserve_shed_total{reason="requests"}'] == 1
        assert now['samserve_requests_total{code="RESOURCE_EXHAUSTED",rpc="Segment"}'] == 2
        assert now["samserve_queued"] == now['samserve_in_flight{limit="requests"}'] == 0

        generation: Any = served.stub.GenerateMasks(pb.GenerateMasksRequest(image=pb.Image(data=photo(1))))
        await generation.read()
        assert (await scrape(served))['samserve_in_flight{limit="generations"}'] == 1
        await refusal(served.stub.DetectEdges(pb.DetectEdgesRequest(image=pb.Image(data=photo(1)))))
        generation.cancel()
        after = await scraped(served, lambda seen: seen['samserve_in_flight{limit="generations"}'] == 0)
        assert after['samserve_shed_total{reason="generations"}'] == 1


async def test_a_redis_failure_is_exported_and_fails_no_request(redis_server: RedisServer) -> None:
    async with serving(
        metrics_port=0, redis_url=redis_server.url, redis_budget_seconds=5, memory_cache_bytes=0
    ) as served:
        await served.stub.Segment(segment(photo(1)))
        stored = await scraped(
            served, lambda seen: seen['samserve_redis_calls_total{operation="put",outcome="ok"}'] == 1
        )
        assert stored["samserve_redis_breaker_open"] == 0
        await served.stub.Segment(segment(photo(1)))
        found = await scrape(served)
        assert found['samserve_embeddings_total{source="redis"}'] == 1
        assert found["samserve_encodes_avoided_total"] == 1
        redis_server.kill()
        for seed in range(4):
            await served.stub.Segment(segment(photo(seed)))
        down = await scrape(served)
        assert down["samserve_redis_breaker_open"] == 1
        assert down['samserve_redis_calls_total{operation="get",outcome="skipped"}'] > 0
        assert down['samserve_requests_total{code="OK",rpc="Segment"}'] == 6


async def test_gaze_streams_export_samples_frames_and_staleness() -> None:
    async with serving(metrics_port=0) as served:
        call: Any = served.stub.SegmentGaze()
        await call.write(pb.SegmentGazeRequest(config=pb.GazeConfig()))
        frame = pb.GazeFrame(sequence=1, image=pb.Image(data=photo(1)))
        await call.write(pb.SegmentGazeRequest(frame=frame))
        await call.write(pb.SegmentGazeRequest(frame=frame))
        assert (await call.read()).error.field == "frame.sequence"
        answers, masks = 0, 0
        async with asyncio.timeout(60):
            while not masks:
                answers += 1
                sample = pb.GazeSample(sequence=answers, timestamp_nanoseconds=answers * 10**7, x=20, y=15, valid=True)
                await call.write(pb.SegmentGazeRequest(sample=sample))
                masks += (await call.read()).answer.HasField("mask")
        during = await scrape(served)
        assert during['samserve_in_flight{limit="streams"}'] == 1
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        now = await scraped(served, lambda seen: seen['samserve_in_flight{limit="streams"}'] == 0)
        samples = {name: value for name, value in now.items() if name.startswith("samserve_gaze_samples_total")}
        assert sum(samples.values()) == now["samserve_gaze_staleness_seconds_count"] == answers
        assert now['samserve_gaze_samples_total{outcome="decoded"}'] == 1
        assert now["samserve_gaze_staleness_seconds_sum"] > 0
        frames = {name: now[f'samserve_gaze_frames_total{{outcome="{name}"}}'] for name in GAZE_FRAME_OUTCOMES}
        assert frames == {"received": 1, "dropped": 0, "keyframe": 1, "refused": 1}
        assert now['samserve_embeddings_total{source="encoded"}'] == 1
        assert now['samserve_stage_seconds_count{stage="post_process"}'] == 1
        assert now['samserve_request_seconds_count{embedding="cold",rpc="SegmentGaze"}'] == 1


async def test_shed_messages_of_streams_are_counted(encoder_gate: ModelGate) -> None:
    async with serving(metrics_port=0, max_encodes=1) as served:
        encoder_gate.shut()
        busy = asyncio.ensure_future(served.stub.Segment(segment(photo(1))))
        await encoder_gate.holds()
        call: Any = served.stub.SegmentStream()
        start = pb.StartSession(image=pb.Image(data=photo(2)))
        await call.write(pb.SegmentStreamRequest(sequence=1, start_session=start))
        assert (await call.read()).error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert (await scrape(served))['samserve_shed_total{reason="encodes"}'] == 1
        call.cancel()
        encoder_gate.open()
        await busy


async def test_model_and_build_are_exported() -> None:
    manifest = ModelManifest.read(default_model_repository())
    async with serving(metrics_port=0, memory_cache_bytes=1 << 20) as served:
        now = await scrape(served)
        assert now["samserve_models_ready"] == 1
        assert now[f'samserve_model_info{{fingerprint="{manifest.fingerprint}",model="{manifest.model}"}}'] == 1
        version = (await served.stub.GetServerInfo(pb.GetServerInfoRequest())).version
        assert now[f'samserve_build_info{{backend="onnxruntime",version="{version}"}}'] == 1
        assert now["samserve_memory_cache_max_bytes"] == 1 << 20


async def test_without_triton_the_models_are_not_ready() -> None:
    async with serving(metrics_port=0, backend="triton", triton="127.0.0.1:1") as served:
        assert (await scrape(served))["samserve_models_ready"] == 0
        await refusal(served.stub.Segment(segment(photo(1))))
        assert (await scrape(served))['samserve_requests_total{code="UNAVAILABLE",rpc="Segment"}'] == 1


async def test_every_series_is_there_from_the_start_and_odd_calls_make_none(encoder_gate: ModelGate) -> None:
    async with serving(metrics_port=0) as served:
        fresh = await scrape(served)
        for method in ("/samserve.v1.SegmentationService/NoSuch", "/no.Such/Service", "/"):
            call: Any = served.channel.unary_unary(method)
            assert (await refusal(call(b""))).code is grpc.StatusCode.UNIMPLEMENTED
        odd: Any = served.channel.unary_unary("/samserve.v1.SegmentationService/Segment")
        await refusal(odd(b"\xff\xff\xff", metadata=(("samserve-tenant", 'a"} 1\\'), ("x-request-id", "{}"))))
        await served.stub.Segment(segment(photo(1)), metadata=(("samserve-tenant", 'a"} 1\\'),))
        encoder_gate.shut()
        await refusal(served.stub.Segment(segment(photo(2)), timeout=0.5))
        encoder_gate.open()
        await refusal(served.stub.Segment(pb.SegmentRequest()))
        stream: Any = served.stub.SegmentGaze()
        await stream.write(pb.SegmentGazeRequest())
        await refusal(stream.read())
        later = await scrape(served)
        assert set(later) == set(fresh)
        totals = {name: value for name, value in fresh.items() if "_total{" in name and "process_" not in name}
        assert 'samserve_requests_total{code="DEADLINE_EXCEEDED",rpc="Segment"}' in totals
        assert set(totals.values()) == {0}


def test_codes_that_are_seeded_are_those_of_the_errors() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {status_code(kind.__new__(kind)).name for kind in kinds if issubclass(kind, errors.SamserveError)}
    assert codes | {"OK", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL"} == set(GATEWAY_CODES)


async def test_promtool_accepts_the_metrics() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing; install it: apt-get install prometheus")
    async with serving(metrics_port=0) as served:
        await served.stub.Segment(segment(photo(1)))
        text = await asyncio.to_thread(page, served)
    check = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


@pytest.mark.parametrize("sent", [b"", b"GET /metr"])
async def test_idle_scrape_connections_are_closed_and_block_no_scrape(
    sent: bytes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ScrapeHandler, "timeout", 2.0)
    async with serving(metrics_port=0) as served, asyncio.timeout(60):
        silent = [await asyncio.open_connection("127.0.0.1", served.gateway.metrics_port) for _ in range(5)]
        for _, writer in silent:
            writer.write(sent)
        assert await scrape(served)
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
    assert "Traceback" not in capfd.readouterr().err
