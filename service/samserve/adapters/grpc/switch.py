"""Exchanging what answers the calls of `SegmentationService` while they are served."""

# grpc's own classes are generic to the type checker only.
from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc

from samserve.adapters.grpc.reading import refusing
from samserve.api import RPCS
from samserve.domain.errors import ModelUnavailable
from samserve.usecases.load.admission import Admission
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceServicer, add_SegmentationServiceServicer_to_server

_RETRY_AFTER_SECONDS = 1.0

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_HANDLER_OF_KIND = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class SwitchableHandler(grpc.GenericRpcHandler):
    """Answers each call by the servicer of the moment at which it begins; calls under way keep theirs.

    Until there is one, calls are refused as `ModelUnavailable`.

    Args:
        service: full name.
        admissions: by rpc, what its calls will ask for a place: they are refused unparsed while there is none.
    """

    def __init__(self, service: str, admissions: Mapping[str, Admission]) -> None:
        self._prefix = f"/{service}/"
        self._admissions = admissions
        self._handlers: Mapping[str, Handler] = {
            rpc: _unavailable(handler)
            for rpc, handler in self._of(SegmentationServiceServicer()).items()  # type: ignore[abstract]
        }

    def exchange(self, servicer: SegmentationServiceServicer) -> None:
        """Have this servicer answer from now on."""
        self._handlers = self._of(servicer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """See `grpc.GenericRpcHandler`."""
        method = handler_call_details.method
        return self._handlers.get(method.removeprefix(self._prefix)) if method.startswith(self._prefix) else None

    def _of(self, servicer: SegmentationServiceServicer) -> Mapping[str, Handler]:
        recorder = _Recorder()
        add_SegmentationServiceServicer_to_server(servicer, recorder)  # type: ignore[arg-type]
        return {
            rpc: refusing(handler, RPCS[rpc].input_type.full_name, self._admissions.get(rpc))
            for rpc, handler in recorder.handlers.items()
        }


class _Recorder:
    """Is told by the generated code what it tells a server."""

    def __init__(self) -> None:
        self.handlers: Mapping[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers in the older form."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        self.handlers = handlers


def _unavailable(handler: Handler) -> Handler:
    async def single(request: Any, context: Any) -> None:
        _refuse()

    async def stream(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        _refuse()
        yield

    make: Any = _HANDLER_OF_KIND[handler.request_streaming, handler.response_streaming]
    unavailable: Handler = make(
        stream if handler.response_streaming else single, handler.request_deserializer, handler.response_serializer
    )
    return unavailable


def _refuse() -> NoReturn:
    raise ModelUnavailable("the models are not loaded yet", _RETRY_AFTER_SECONDS)
