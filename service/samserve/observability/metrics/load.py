"""Metrics of the gateway's load, read on each scrape."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from samserve.domain.errors import LIMITS
from samserve.usecases.load.admission import Admission


class LoadMetrics:
    """Gauges that read their values from admission limits and queues."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._in_flight = Gauge(
            "samserve_in_flight",
            "Requests, encodes, mask generations and streams in flight, by limit",
            ("limit",),
            registry=registry,
        )
        self._in_flight_max = Gauge(
            "samserve_in_flight_max", "Maximum in flight, by limit; excess load is shed", ("limit",), registry=registry
        )
        self._queued = Gauge(
            "samserve_queued",
            "Encodes admitted but not yet running: waiting for another gateway's encode, for image decoding, or for "
            "an ONNX Runtime thread. "
            "Triton reports its own queue as nv_inference_pending_request_count.",
            registry=registry,
        )
        for limit in LIMITS:
            self._in_flight.labels(limit)
            self._in_flight_max.labels(limit)

    def watch(self, admission: Admission) -> None:
        """Export this limit."""
        self._in_flight.labels(admission.work).set_function(lambda: admission.in_flight)
        self._in_flight_max.labels(admission.work).set(admission.limit)

    def watch_queue(self, queued: Callable[[], int]) -> None:
        """Export the length of this queue."""
        self._queued.set_function(queued)
