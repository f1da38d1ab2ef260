"""Settings of a gateway: the environment variables `SAMSERVE_*` and the flags of `samserve serve`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from samserve.adapters.redis.connection import check_url
from samserve.domain.automatic import MAX_POINTS_PER_SIDE, AutomaticMaskParameters
from samserve.usecases.load.thread_pools import available_cores

_PACKAGE = Path(__file__).resolve().parents[1]
_MIB = 1 << 20
_MAX_PORT = 65_535
_GENERATION = AutomaticMaskParameters()
_BACKEND_OF_ENGINE = {"embedded": "onnxruntime", "triton": "triton"}
_CURRENT_NAMES = {"engine": "backend", "engine_threads": "onnxruntime_threads"}
"""Deprecated settings and their replacements."""


def default_model_repository() -> Path:
    """The bundled model: inside the installed package, or next to `service/` in a checkout."""
    installed = _PACKAGE / "model_repository"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "model_repository"


class Settings(BaseSettings):
    """Settings of `samserve serve`. The defaults are those of a fresh machine: ONNX Runtime, memory cache.

    Its processes share out the machine's cores and `memory_cache_bytes`; limits of calls, and scratch, are each one's.
    """

    # In a Compose file, `REDIS_URL: ${REDIS_URL:-}` sets an empty variable to mean that it is unset.
    model_config = SettingsConfigDict(
        env_prefix="SAMSERVE_", env_ignore_empty=True, extra="forbid", frozen=True, protected_namespaces=()
    )

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=50051, ge=0, le=_MAX_PORT, description="gRPC port; 0 selects a free port")
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=_MAX_PORT,
        description="separate gRPC port for health checks, of the first process; disabled by default",
    )
    metrics_port: int | None = Field(
        default=None, ge=0, le=_MAX_PORT, description="Prometheus port, of the first process; disabled by default"
    )
    processes: int = Field(
        default=1, ge=1, description="gateway processes that share the port; each uses the next health and metrics port"
    )
    log_format: Literal["json", "text"] | None = Field(
        default=None, description="format of the log; default: text if standard error is a terminal, otherwise json"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="lowest level to log; INFO includes a line per call"
    )
    tracing: bool = Field(
        default=False, description="export OpenTelemetry traces by OTLP; configure with the OTEL_* variables"
    )
    stop_grace_seconds: float = Field(
        default=20.0, ge=0, description="time that calls in flight get to finish on shutdown"
    )

    backend: Literal["onnxruntime", "triton"] = Field(default="onnxruntime", description="backend that runs the models")
    engine: Literal["embedded", "triton"] | None = Field(
        default=None, description="deprecated, use --backend; embedded means onnxruntime"
    )
    model_repository: Path = Field(
        default_factory=default_model_repository,
        description="folder of the models; Triton uses its own; default: the bundled model",
    )
    onnxruntime_threads: int = Field(
        default=0,
        ge=0,
        description="ONNX Runtime threads per encode, and concurrent mask decodes; 0 uses the process's cores",
    )
    engine_threads: int | None = Field(default=None, ge=0, description="deprecated, use --onnxruntime-threads")

    triton: str = Field(default="127.0.0.1:8001", description="host:port of Triton's gRPC endpoint")
    triton_encoder: str | None = Field(
        default=None, description="host:port of a separate Triton for the image encoder; default: the same"
    )
    triton_timeout_seconds: float = Field(
        default=30.0, gt=0, description="timeout of an inference request to Triton, including its queue"
    )
    triton_scratch_bytes: int = Field(
        default=128 * _MIB, ge=0, description="shared memory per process for tensors in flight; 0 sends them over gRPC"
    )

    memory_cache_bytes: int = Field(
        default=512 * _MIB, ge=0, description="capacity of the memory cache tier, divided among all processes"
    )
    # What is not in the representation, because it may hold a password, is not in error messages either.
    redis_url: str | None = Field(
        default=None, repr=False, description="redis://... URL of the shared cache tier; disabled by default"
    )
    redis_cluster: bool = Field(default=False, description="the URL names the nodes of a Redis Cluster")
    redis_budget_seconds: float = Field(default=0.05, gt=0, description="timeout of a Redis read")
    redis_ttl_seconds: int = Field(default=24 * 3600, gt=0, description="time to live of an embedding in Redis")
    cache_secret: SecretStr = Field(
        default=SecretStr(""),
        repr=False,
        description="secret for deriving cache keys; use the same in all gateways that share a Redis; set the "
        "variable, because other users of the machine can read flags",
    )

    max_image_bytes: int = Field(default=32 * _MIB, gt=0, description="maximum size of an image file")
    max_image_pixels: int = Field(default=64_000_000, gt=0, description="maximum width times height of an image")
    max_prompts: int = Field(default=512, gt=0, description="maximum prompts per request")
    # 128 including a box's corners: the largest number that the models on Triton are built for.
    max_points_per_prompt: int = Field(default=64, gt=0, le=126, description="maximum points per prompt")
    max_requests: int = Field(default=32, gt=0, description="maximum requests in flight; further ones are rejected")
    max_encodes: int = Field(default=16, gt=0, description="maximum encodes in flight, including queued ones")
    image_decode_workers: int = Field(
        default_factory=lambda: available_cores(),
        gt=0,
        description="maximum image files decoded at once, divided among all processes; default: the machine's cores",
    )

    max_generations: int = Field(
        default=4, gt=0, description="maximum mask generations, edge detections and text prompts in flight"
    )
    text_points_per_side: int = Field(
        default=_GENERATION.points_per_side,
        ge=1,
        le=MAX_POINTS_PER_SIDE,
        description="points_per_side of the mask generation behind a text prompt",
    )
    text_pred_iou_thresh: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="pred_iou_thresh of the mask generation behind a text prompt; default: the model's",
    )
    text_stability_score_thresh: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="stability_score_thresh of the mask generation behind a text prompt; default: the model's",
    )
    max_streams: int = Field(default=16, gt=0, description="maximum open gaze, interactive and tracking streams")
    stream_idle_seconds: float = Field(
        default=30.0, gt=0, description="idle timeout of a stream; waiting for a response does not count as idle"
    )
    max_frame_bytes: int = Field(default=8 * _MIB, gt=0, description="maximum size of a stream's frame")
    max_tracked_objects: int = Field(default=32, gt=0, description="maximum objects per tracking stream")
    gaze_encodes_per_second: float = Field(
        default=2.0,
        gt=0,
        description="encode rate per process, shared by a tenant's gaze streams; per stream without a tenant",
    )

    @model_validator(mode="before")
    @classmethod
    def _replace_deprecated(cls, values: dict[str, Any]) -> dict[str, Any]:
        return replace_deprecated(values)

    @field_validator("triton", "triton_encoder")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        if address is not None and ("://" in address or not address.rpartition(":")[2].isdecimal()):
            raise ValueError("must be HOST:PORT of Triton's gRPC endpoint, such as 127.0.0.1:8001")
        return address

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, url: str | None) -> str | None:
        if url is not None:
            check_url(url)
        return url

    @field_validator("processes")
    @classmethod
    def _ports_suffice(cls, processes: int, info: ValidationInfo) -> int:
        for kind in ("health", "metrics"):
            first = info.data.get(f"{kind}_port")
            if first and first + processes - 1 > _MAX_PORT:
                raise ValueError(
                    f"{processes} {kind} ports from {first} on exceed {_MAX_PORT}; lower {kind}_port or processes"
                )
        return processes

    @property
    def max_message_bytes(self) -> int:
        """Largest gRPC message: an image and its prompts."""
        return 2 * self.max_image_bytes

    @property
    def deprecated(self) -> dict[str, str]:
        """The deprecated settings in use, each with its replacement."""
        return {name: current for name, current in _CURRENT_NAMES.items() if getattr(self, name) is not None}

    @property
    def cores(self) -> int:
        """Number of cores of the machine for each process."""
        return max(1, available_cores() // self.processes)

    def of_process(self, number: int, port: int) -> "Settings":
        """The settings of one of several processes, numbered from 0: its share of resources and the common port."""
        return self.model_copy(
            update={
                "port": port,
                "health_port": _following(self.health_port, number),
                "metrics_port": _following(self.metrics_port, number),
                "onnxruntime_threads": self.onnxruntime_threads or self.cores,
                "memory_cache_bytes": self.memory_cache_bytes // self.processes,
                "image_decode_workers": max(1, self.image_decode_workers // self.processes),
            }
        )


def replace_deprecated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the replacements of deprecated settings, unless they are set themselves."""
    replaced = {
        "backend": _BACKEND_OF_ENGINE.get(values.get("engine", "")),
        "onnxruntime_threads": values.get("engine_threads"),
    }
    return {name: value for name, value in replaced.items() if value is not None} | dict(values)


def _following(port: int | None, number: int) -> int | None:
    # "No port" and "any free port" have no next port.
    return port + number if port else port
