"""Division of cores, memory and ports among processes, and validation of settings."""

import pytest
from pydantic import ValidationError

from samserve.gateway.settings import Settings


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_out_cores_and_memory_and_each_has_its_own_ports(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samserve.gateway.settings.available_cores", lambda: 8)
    whole = Settings(processes=processes, port=0, health_port=50061, metrics_port=9100, memory_cache_bytes=6000)
    each = [whole.of_process(number, 50051) for number in range(processes)]
    assert {settings.port for settings in each} == {50051}
    assert [settings.metrics_port for settings in each] == list(range(9100, 9100 + processes))
    assert [settings.health_port for settings in each] == list(range(50061, 50061 + processes))
    assert sum(settings.memory_cache_bytes for settings in each) == 6000
    for threads in ("onnxruntime_threads", "image_decode_workers", "cores"):
        assert 8 - processes < sum(getattr(settings, threads) for settings in each) <= 8
    assert {settings.max_requests for settings in each} == {whole.max_requests}


@pytest.mark.parametrize("metrics_port", [None, 0])
def test_no_metrics_port_and_any_metrics_port_are_the_same_for_all(metrics_port: int | None) -> None:
    settings = Settings(processes=2, metrics_port=metrics_port)
    assert [settings.of_process(number, 1).metrics_port for number in range(2)] == [metrics_port] * 2


def test_more_processes_than_cores_have_a_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samserve.gateway.settings.available_cores", lambda: 2)
    settings = Settings(processes=4).of_process(0, 1)
    assert (settings.cores, settings.onnxruntime_threads, settings.image_decode_workers) == (1, 1, 1)


def test_threads_of_a_run_that_were_asked_for_are_not_shared_out() -> None:
    assert Settings(processes=2, onnxruntime_threads=3).of_process(0, 1).onnxruntime_threads == 3


def test_processes_whose_ports_do_not_fit_are_refused() -> None:
    Settings(processes=36, metrics_port=65_500)
    with pytest.raises(ValidationError, match="37 metrics ports from 65500 on exceed 65535"):
        Settings(processes=37, metrics_port=65_500)
    with pytest.raises(ValidationError, match="37 health ports from 65500 on exceed 65535"):
        Settings(processes=37, health_port=65_500)


@pytest.mark.parametrize(("engine", "backend"), [("embedded", "onnxruntime"), ("triton", "triton")])
def test_the_former_variable_still_sets_the_backend(engine: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMSERVE_ENGINE", engine)
    assert Settings().backend == backend


def test_the_backend_wins_over_its_former_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMSERVE_ENGINE", "triton")
    monkeypatch.setenv("SAMSERVE_BACKEND", "onnxruntime")
    assert Settings().backend == "onnxruntime"
    assert Settings(backend="triton").backend == "triton"


def test_the_former_variable_of_threads_gives_way_to_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMSERVE_ENGINE_THREADS", "3")
    assert Settings().onnxruntime_threads == 3
    monkeypatch.setenv("SAMSERVE_ONNXRUNTIME_THREADS", "2")
    assert Settings().onnxruntime_threads == 2


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMSERVE_ENGINE", "steam")
    with pytest.raises(ValidationError, match="engine"):
        Settings()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_an_empty_variable_is_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings()
    monkeypatch.setenv(f"SAMSERVE_{name.upper()}", "")
    assert Settings() == default


@pytest.mark.parametrize(
    "url", ["cache:6379", "cache", "http://cache:6379", "redis://cache:port", "redis://cache/?db=x"]
)
def test_a_redis_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="must be redis://HOST:PORT, rediss://HOST:PORT or unix://PATH"):
        Settings(redis_url=url)


@pytest.mark.parametrize(
    "url", ["redis://cache", "rediss://:secret@cache:6380/3", "unix:///run/redis", "redis://[::1]:6379"]
)
def test_a_redis_url_in_any_of_its_forms_is_accepted(url: str) -> None:
    assert Settings(redis_url=url).redis_url == url


@pytest.mark.parametrize("name", ["triton", "triton_encoder"])
def test_an_address_of_triton_is_a_host_and_a_port(name: str) -> None:
    for address in ("http://triton:8001", "triton", "triton:grpc", "triton:"):
        with pytest.raises(ValidationError, match="must be HOST:PORT of Triton's gRPC endpoint"):
            Settings(**{name: address})  # type: ignore[arg-type]
    for address in ("triton:8001", "[::1]:8001", "dns:triton:8001"):
        assert getattr(Settings(**{name: address}), name) == address  # type: ignore[arg-type]
