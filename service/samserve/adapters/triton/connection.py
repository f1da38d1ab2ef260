"""The connection to one Triton: its calls, and translation of its failures to domain errors."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from samserve.domain.errors import RETRY_AFTER_SECONDS, CapacityExceeded, ModelUnavailable
from samserve.domain.manifest import DECODER, ENCODER, ModelManifest, read_mask_generation

_DESCRIPTION = ("model", "fingerprint", "precision")
"""Parameters of a model's configuration that identify the build."""

# Text by which Triton reports a rejection by the model's queue policy; the status code does not distinguish it.
_QUEUE_REFUSALS = ("maximum queue size", "timeout expired")

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A separate connection, and fast reconnects after Triton was down, because readiness waits for it.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
]
_IN_TURNS = ("grpc.lb_policy_name", "round_robin")

Answer = TypeVar("Answer")


class TritonTimeout(ModelUnavailable):
    """Triton accepted the call, as far as can be told, and did not answer in time."""


class TritonConnection:
    """Calls to Triton: one server for both models, or one for each. It connects on first use and reconnects when
    necessary.

    Args:
        address: `host:port` of Triton's gRPC service.
        poll_seconds: the longest that a call takes which runs no model.
        infer_seconds: the longest that a model's run takes, its queue included. A caller's own deadline cancels it
            earlier.
        headers: what a model's run is sent along with; asked each time.
        encoder_address: of other Tritons that serve the image encoder, taken in turns if the name has several
            addresses; None if the first serves it too.
    """

    def __init__(
        self,
        address: str,
        poll_seconds: float,
        infer_seconds: float,
        headers: Callable[[], Mapping[str, str]] = dict,
        encoder_address: str | None = None,
    ) -> None:
        self.address = address if encoder_address is None else f"{address}, with the encoder at {encoder_address}"
        self.encodes_elsewhere = encoder_address is not None
        self._poll_seconds = poll_seconds
        self._infer_seconds = infer_seconds
        self._headers = headers
        self._client = InferenceServerClient(address, channel_args=_OPTIONS)
        # By default, a model is served where the decoder is.
        self._runs_on = defaultdict(lambda: self._client, {DECODER: self._client})
        self._asks = self._runs_on.copy()
        if encoder_address is not None:
            # Inferences have their own round robin: mixed with status polls, every other Triton would get none.
            for clients in (self._runs_on, self._asks):
                clients[ENCODER] = InferenceServerClient(encoder_address, channel_args=[*_OPTIONS, _IN_TURNS])

    async def manifest(self) -> ModelManifest:
        """Read the manifest from the models' configurations. Both models have to be ready.

        Raises:
            ModelUnavailable: Triton cannot be reached, a model is not ready, or the two do not belong together.
        """
        for model in (ENCODER, DECODER):
            if not await self.is_ready(model):
                raise self._unavailable(f"{model} is not ready")
        return self._read_manifest(*[await self._config(model) for model in (ENCODER, DECODER)])

    async def is_ready(self, model: str) -> bool:
        """Return True if Triton serves this model. Raises ModelUnavailable."""
        ready = self._asks[model].is_model_ready(model, client_timeout=self._poll_seconds)
        return bool(await self._answer(ready))

    async def fingerprint(self, model: str) -> str:
        """The fingerprint of the build that a model belongs to. Raises ModelUnavailable."""
        return str((await self._config(model)).parameters["fingerprint"].string_value)

    async def register(self, name: str, nbytes: int) -> bool:
        """Register the POSIX shared memory `/name` with the decoder's Triton as region `name`.

        Returns:
            False if it cannot: another host, another container, another user, or not allowed.

        Raises:
            ModelUnavailable: Triton cannot be reached.
        """
        try:
            await self._client.register_system_shared_memory(
                name, f"/{name}", nbytes, client_timeout=self._poll_seconds
            )
        except InferenceServerException as error:
            if _is_lost(error):
                raise self._translate(error) from error
            return False
        return True

    async def regions(self) -> set[str]:
        """Names of the regions registered with this Triton process. Raises ModelUnavailable."""
        status = await self._answer(self._client.get_system_shared_memory_status(client_timeout=self._poll_seconds))
        return set(status.regions)

    async def unregister(self, name: str) -> None:
        """Unregister a region that no request uses any more. Errors are ignored."""
        try:
            await self._client.unregister_system_shared_memory(name, client_timeout=self._poll_seconds)
        except InferenceServerException:
            return

    async def infer(
        self, model: str, inputs: Sequence[InferInput], outputs: Sequence[InferRequestedOutput]
    ) -> InferResult:
        """Run a model. Cancelling cancels the request in Triton; if it is still queued there, it never runs.

        Raises:
            CapacityExceeded: the model's queue is full, or the request was in it for too long.
            ModelUnavailable: anything else that went wrong.
        """
        return await self._answer(
            self._runs_on[model].infer(
                model,
                inputs,
                outputs=outputs,
                client_timeout=self._infer_seconds,
                headers=dict(self._headers()),
            )
        )

    async def aclose(self) -> None:
        """Close the connection."""
        for client in {*self._runs_on.values(), *self._asks.values()}:
            await client.close()

    async def _config(self, model: str) -> pb.ModelConfig:
        call = self._asks[model].get_model_config(model, client_timeout=self._poll_seconds)
        return (await self._answer(call)).config

    async def _answer(self, call: Awaitable[Answer]) -> Answer:
        try:
            return await call
        except InferenceServerException as error:
            raise self._translate(error) from error

    def _translate(self, error: InferenceServerException) -> Exception:
        message = str(error.message())
        if any(refusal in message for refusal in _QUEUE_REFUSALS):
            return CapacityExceeded(f"Triton rejected the request: {message}", RETRY_AFTER_SECONDS, "triton_queue")
        if error.status() == str(grpc.StatusCode.DEADLINE_EXCEEDED):
            return TritonTimeout(f"Triton at {self.address} did not answer in time", RETRY_AFTER_SECONDS)
        return self._unavailable(message)

    def _unavailable(self, reason: str) -> ModelUnavailable:
        return ModelUnavailable(f"Triton at {self.address}: {reason}", RETRY_AFTER_SECONDS)

    def _read_manifest(self, encoder: pb.ModelConfig, decoder: pb.ModelConfig) -> ModelManifest:
        # Other parameters belong to Triton, such as those of its Python backend.
        described = [
            {name: value.string_value for name, value in c.parameters.items() if name in _DESCRIPTION}
            for c in (encoder, decoder)
        ]
        if described[0] != described[1] or not described[0].get("fingerprint"):
            raise self._unavailable(
                f"{ENCODER} and {DECODER} are not of one build; write the repository anew with build_engines.py"
            )
        try:
            sizes = {tensor.name: list(tensor.dims) for c in (encoder, decoder) for tensor in (*c.input, *c.output)}
            channels, height, width = sizes["image_embeddings"]
            return ModelManifest(
                **described[0],
                image_size=sizes["image"][-1],
                embedding_shape=(channels, height, width),
                low_res_size=sizes["low_res_masks"][-1],
                mask_generation=read_mask_generation(
                    {name: value.string_value for name, value in decoder.parameters.items()}
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._unavailable(f"the configuration of its models cannot be used: {error!r}") from error


def _is_lost(error: InferenceServerException) -> Any:
    return error.status() in (str(grpc.StatusCode.UNAVAILABLE), str(grpc.StatusCode.DEADLINE_EXCEEDED))
