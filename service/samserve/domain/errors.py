"""What can go wrong, named by the condition. Adapters translate foreign exceptions into these and these into gRPC."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class SamserveError(Exception):
    """Base of every error that samserve itself raises."""


class InvalidArgument(SamserveError):
    """The request can never succeed as it is.

    Attributes:
        field: path of the offending field in the request message, such as `prompts[1].box.x1`; empty where it is the
            message as a whole. What judges a part names the path inside the part, and who knows where the part lies
            adds that by `within`.
        description: what is wrong with it and what to do.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}" if field else description)
        self.field = field
        self.description = description

    def within(self, part: str) -> Self:
        """The same error, seen from a message that has what it was raised for as its field `part`."""
        return type(self)(f"{part}.{self.field}" if self.field else part, self.description)


@contextmanager
def within(part: str) -> Iterator[None]:
    """What is wrong inside is wrong with the field `part`: see `InvalidArgument.within`."""
    try:
        yield
    except InvalidArgument as error:
        raise error.within(part) from error.__cause__


class InvalidPrompt(InvalidArgument):
    """A prompt is malformed, out of range or asks for too much."""


class InvalidParameter(InvalidArgument):
    """A parameter of a method is out of range, or several together ask for too much."""


class InvalidImage(InvalidArgument):
    """The image is empty, unreadable, too large, or its id is malformed."""


class EmbeddingNotFound(SamserveError):
    """An image was named by its id and its embedding is not cached: the caller has to send the bytes."""

    def __init__(self, image_id: str) -> None:
        super().__init__(f"no embedding cached for {image_id}; send the image itself")
        self.image_id = image_id


class PixelsNotFound(EmbeddingNotFound):
    """An image was named by its id where its pixels are needed, which are not kept."""

    def __init__(self, image_id: str) -> None:
        SamserveError.__init__(self, f"text prompts need the pixels of {image_id}; send the image itself")
        self.image_id = image_id


class TextUnavailable(SamserveError):
    """A text prompt needs something that this server does not have; the text says what to install or to build."""


class TransientFailure(SamserveError):
    """The same request can succeed later.

    Attributes:
        retry_after_seconds: how long the caller should wait before it tries again.
    """

    def __init__(self, description: str, retry_after_seconds: float) -> None:
        super().__init__(description)
        self.retry_after_seconds = retry_after_seconds


class CapacityExceeded(TransientFailure):
    """Refused before any work was queued, because too much is in flight.

    Attributes:
        reason: of what there is too much, one of `SHED_REASONS`.
    """

    def __init__(self, description: str, retry_after_seconds: float, reason: str) -> None:
        super().__init__(description, retry_after_seconds)
        self.reason = reason


LIMITS = ("requests", "encodes", "generations", "streams")
"""What a gateway counts while it is in flight, and refuses beyond a limit."""

SHED_REASONS = (*LIMITS, "deadline", "edits", "triton_queue")
"""The limits; deadlines that the requests in flight will outlast; edits of a session that wait for its image; and what
Triton's own queues refuse."""


class ModelUnavailable(TransientFailure):
    """The models cannot be reached or cannot answer."""


class ShuttingDown(TransientFailure):
    """The gateway is stopping, and ends a stream that another one can take over."""


class StreamIdle(SamserveError):
    """A stream on which nothing moved for too long: the client sent nothing, or took no answer."""
