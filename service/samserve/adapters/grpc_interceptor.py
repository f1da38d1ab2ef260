"""The outermost room of a request: its id, its status, its count."""

# grpc's own classes are generic to the type checker only.
from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from samserve.adapters.grpc_errors import abort, status_code
from samserve.domain.errors import SamserveError
from samserve.ports import RequestObserver

_log = logging.getLogger(__name__)

REQUEST_ID_METADATA = "x-request-id"
_MAX_REQUEST_ID_LENGTH = 128


class RequestInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the unary calls of one service.

    A request id is taken from the metadata `x-request-id`, or made, and sent back. Domain errors become statuses;
    any other exception is logged with the id and answered by a constant text. A call whose deadline has passed is
    not begun.

    Args:
        service: full name; other services (health, reflection) are left alone.
    """

    def __init__(self, service: str, observer: RequestObserver) -> None:
        self._prefix = f"/{service}/"
        self._observer = observer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Replace the handler of a unary call by one that does the above around it."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix) or not handler.unary_unary:
            return handler
        rpc = handler_call_details.method.removeprefix(self._prefix)
        serve: Callable[[Any, Any], Awaitable[Any]] = handler.unary_unary

        async def unary_unary(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            request_id = _request_id(context)
            started = time.perf_counter()
            code = grpc.StatusCode.OK
            try:
                await context.send_initial_metadata(((REQUEST_ID_METADATA, request_id),))
                remaining = context.time_remaining()
                if remaining is not None and remaining <= 0:
                    code = grpc.StatusCode.DEADLINE_EXCEEDED
                    await context.abort(code, "the deadline passed before the call was begun")
                return await serve(request, context)
            except SamserveError as error:
                code = status_code(error)
                await abort(context, error)
            except asyncio.CancelledError:
                remaining = context.time_remaining()
                expired = remaining is not None and remaining <= 0
                code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
                raise
            except grpc.aio.AbortError:
                raise
            except Exception:
                code = grpc.StatusCode.INTERNAL
                _log.exception("request %s to %s failed", request_id, rpc)
                await context.abort(code, f"internal error; ask the operator about request {request_id}")
            finally:
                self._observer.request(rpc, code.name, time.perf_counter() - started)

        return grpc.unary_unary_rpc_method_handler(
            unary_unary,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _request_id(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_METADATA and 0 < len(value) <= _MAX_REQUEST_ID_LENGTH:
            return str(value)
    return uuid.uuid4().hex
