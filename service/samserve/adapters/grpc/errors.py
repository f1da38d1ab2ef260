"""Mapping of domain errors to gRPC statuses with google.rpc details."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NoReturn

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from samserve.domain.errors import (
    CapacityExceeded,
    EmbeddingNotFound,
    InvalidArgument,
    ModelUnavailable,
    SamserveError,
    ShuttingDown,
    StreamIdle,
    TextUnavailable,
    TransientFailure,
)

_CODES = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    EmbeddingNotFound: grpc.StatusCode.NOT_FOUND,
    CapacityExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ModelUnavailable: grpc.StatusCode.UNAVAILABLE,
    ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    StreamIdle: grpc.StatusCode.DEADLINE_EXCEEDED,
    TextUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
}


def status_code(error: SamserveError) -> grpc.StatusCode:
    """The status code of a domain error."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


async def abort(
    context: "grpc.aio.ServicerContext[Message, Message]", error: SamserveError, extra: Sequence[tuple[str, str]] = ()
) -> NoReturn:
    """End a call with the status and details of a domain error, and with `extra` trailing metadata."""
    code = status_code(error)
    status = Status(code=code.value[0], message=str(error))
    for detail in _details(error):
        status.details.add().Pack(detail)
    metadata: list[tuple[str, str | bytes]] = [*extra, ("grpc-status-details-bin", status.SerializeToString())]
    if isinstance(error, TransientFailure):
        # gRPC's own retries use this metadata; RetryInfo is for client libraries and people.
        metadata.append(("grpc-retry-pushback-ms", str(round(1000 * error.retry_after_seconds))))
    await context.abort(code, str(error), tuple(metadata))


def _details(error: SamserveError) -> Sequence[Message]:
    if isinstance(error, InvalidArgument):
        violation = BadRequest.FieldViolation(field=error.field, description=error.description)
        return [BadRequest(field_violations=[violation])]
    if isinstance(error, TransientFailure):
        retry = RetryInfo()
        retry.retry_delay.FromTimedelta(timedelta(seconds=error.retry_after_seconds))
        return [retry]
    return []
