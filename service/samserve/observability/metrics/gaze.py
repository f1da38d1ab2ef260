"""Metrics of gaze samples and frames."""

from prometheus_client import CollectorRegistry, Counter

from samserve.usecases.observers import GAZE_FRAME_OUTCOMES, GAZE_SAMPLE_OUTCOMES


class GazeMetrics:
    """Implements `GazeObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._samples = Counter(
            "samserve_gaze_samples",
            "Gaze samples, by outcome: decoded, answered without a decode, dropped for a newer one, or refused",
            ("outcome",),
            registry=registry,
        )
        self._frames = Counter(
            "samserve_gaze_frames",
            "Frames of gaze streams, by outcome: all as received, and some also as dropped, keyframe or refused",
            ("outcome",),
            registry=registry,
        )
        for outcome in GAZE_SAMPLE_OUTCOMES:
            self._samples.labels(outcome)
        for outcome in GAZE_FRAME_OUTCOMES:
            self._frames.labels(outcome)

    def gaze_sample(self, outcome: str) -> None:
        self._samples.labels(outcome).inc()

    def gaze_frame(self, outcome: str) -> None:
        self._frames.labels(outcome).inc()
