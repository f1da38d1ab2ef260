"""Metrics of the served models."""

from prometheus_client import CollectorRegistry, Gauge

from samserve.domain.manifest import ModelManifest


class ModelMetrics:
    """The versions of the gateway and its models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ready = Gauge(
            "samserve_models_ready", "1 while the models are ready to serve requests", registry=registry
        )
        self._build = Gauge(
            "samserve_build_info",
            "Constant 1, labelled with the running version and backend",
            ("version", "backend"),
            registry=registry,
        )
        self._model = Gauge(
            "samserve_model_info",
            "Constant 1, labelled with the model served now or, if none is ready, last",
            ("model", "fingerprint"),
            registry=registry,
        )

    def ready(self, is_ready: bool) -> None:
        """Set whether the models are ready."""
        self._ready.set(is_ready)

    def build(self, version: str, backend: str) -> None:
        """Set this gateway's version and backend."""
        self._build.labels(version, backend).set(1)

    def model(self, manifest: ModelManifest) -> None:
        """Set the models being served, replacing earlier ones."""
        self._model.clear()
        self._model.labels(manifest.model, manifest.fingerprint).set(1)
