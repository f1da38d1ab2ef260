"""Exceptions of the client, and their translation from gRPC statuses."""

from collections.abc import Iterable
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

_M = TypeVar("_M", bound=Message)

_STATUS_DETAILS_KEY = "grpc-status-details-bin"
_TOO_LARGE = "message larger than max"


class ClientError(Exception):
    """Base class of all errors of the client. The message states the problem and the remedy."""


class InvalidRequest(ClientError, ValueError):
    """The request is invalid and must be changed; detected by the client or by the server.

    Attributes:
        field: the invalid argument (`point_coords`), or the path of the field in the request message that the server
            reports (`prompts[1].box.x1`).
        description: the constraint that it violates.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}" if field else description)
        self.field = field
        self.description = description


class ImageNotFound(ClientError):
    """The server does not know the image of this id. Pass the image itself."""


class RetryLater(ClientError):
    """Transient: a later retry may succeed. The client already retried as long as the deadline allowed.

    Attributes:
        retry_after_seconds: retry delay suggested by the server; None if it suggested none.
    """

    def __init__(self, text: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(RetryLater):
    """The server is not reachable, or its models are not available."""


class Overloaded(RetryLater):
    """The server rejected the request because of its load."""


class DeadlineExceeded(ClientError, TimeoutError):
    """The call did not complete within `timeout_seconds`."""


class ServerError(ClientError):
    """Any other failed call.

    Attributes:
        code: name of the gRPC status, such as `INTERNAL`.
    """

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


def from_rpc_error(error: grpc.RpcError, target: str) -> ClientError:
    """Translate the gRPC error of a call to `target`; the original becomes the cause."""
    translated = _translate(error, target)
    translated.__cause__ = error
    return translated


def _translate(error: grpc.RpcError, target: str) -> ClientError:
    code, text = error.code() or grpc.StatusCode.UNKNOWN, error.details() or "no details"
    retry_info = _detail(error, error_details_pb2.RetryInfo())
    retry_after = retry_info.retry_delay.ToNanoseconds() / 1e9 if retry_info else None
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            bad_request = _detail(error, error_details_pb2.BadRequest())
            if bad_request and bad_request.field_violations:
                first = bad_request.field_violations[0]
                return InvalidRequest(first.field, first.description)
            return InvalidRequest("", text)
        case grpc.StatusCode.NOT_FOUND:
            return ImageNotFound(text)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if _TOO_LARGE in text:
            return InvalidRequest("", _too_large(text, target))
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded(f"{target} is overloaded ({text}); retry later or add gateways", retry_after)
        case grpc.StatusCode.UNAVAILABLE:
            return Unavailable(f"{target} is unavailable ({text}); check the address and the server", retry_after)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(
                f"no response from {target} before the deadline; raise timeout_seconds or check the server's load"
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return ServerError(
                f"{target} does not implement this rpc ({text}); check that it is samserve, and its version", code.name
            )
        case grpc.StatusCode.FAILED_PRECONDITION:
            return ServerError(f"{target} does not support this request: {text}", code.name)
        case _:
            return ServerError(f"{target} failed with {code.name} ({text}); see the server's log", code.name)


def _too_large(text: str, target: str) -> str:
    if any(direction in text for direction in ("CLIENT: Received", "SERVER: Sent")):
        return f"the response is too large for one message ({text}); send fewer prompts at once or unset low_res_masks"
    return f"the request is larger than {target} accepts ({text}); send a smaller or more compressed image"


def _detail(error: grpc.RpcError, message: _M) -> _M | None:
    """Find the status detail with the type of `message`, or None."""
    # The type stubs assume the named tuples of synchronous calls; asynchronous calls return plain pairs.
    for key, value in cast(Iterable[tuple[str, str | bytes]], error.trailing_metadata() or ()):
        if key == _STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                return None
            for detail in status.details:
                if detail.Unpack(message):
                    return message
    return None
