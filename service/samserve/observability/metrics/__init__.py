"""Prometheus metrics. All label sets are bounded and initialised, so that rates exist from the start."""

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from samserve.observability.metrics.caches import CacheMetrics
from samserve.observability.metrics.gaze import GazeMetrics
from samserve.observability.metrics.load import LoadMetrics
from samserve.observability.metrics.models import ModelMetrics
from samserve.observability.metrics.requests import RequestMetrics

__all__ = ["Metrics"]


class Metrics:
    """All metrics of one gateway.

    Attributes:
        registry: theirs alone.
        requests: implements `RequestObserver`.
        caches: implements `CacheObserver`.
        gaze: implements `GazeObserver`.
    """

    def __init__(self) -> None:
        # Omits the `_created` series, which Prometheus does not use.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.requests = RequestMetrics(self.registry)
        self.caches = CacheMetrics(self.registry)
        self.gaze = GazeMetrics(self.registry)
        self.load = LoadMetrics(self.registry)
        self.models = ModelMetrics(self.registry)
        ProcessCollector(registry=self.registry)
