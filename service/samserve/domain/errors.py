"""Domain errors, named by their condition. Adapters translate third-party exceptions into these, and these into
gRPC."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class SamserveError(Exception):
    """Base class of all errors that samserve raises."""


class InvalidArgument(SamserveError):
    """The request is invalid and must be changed.

    Attributes:
        field: path of the invalid field in the request message, such as `prompts[1].box.x1`; empty for the message as a
            whole. A check of a part names the path inside the part, and the caller adds the part's own path with
            `within`.
        description: what is wrong and what to do.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}" if field else description)
        self.field = field
        self.description = description

    def within(self, part: str) -> Self:
        """Return the same error with `part` prepended to the field's path."""
        return type(self)(f"{part}.{self.field}" if self.field else part, self.description)


@contextmanager
def within(part: str) -> Iterator[None]:
    """Prepend `part` to the field of every `InvalidArgument` raised inside the `with` block."""
    try:
        yield
    except InvalidArgument as error:
        raise error.within(part) from error.__cause__


class InvalidPrompt(InvalidArgument):
    """A prompt is malformed, out of range or exceeds a limit."""


class InvalidParameter(InvalidArgument):
    """A parameter of a method is out of range, or several together exceed a limit."""


class InvalidImage(InvalidArgument):
    """The image is empty, unreadable or too large, or its id is malformed."""


class EmbeddingNotFound(SamserveError):
    """The image was given by id and its embedding is not cached. The caller has to send the image."""

    def __init__(self, image_id: str) -> None:
        super().__init__(f"no embedding cached for {image_id}; send the image itself")
        self.image_id = image_id


class PixelsNotFound(EmbeddingNotFound):
    """The image was given by id, but the method needs its pixels, which are not kept."""

    def __init__(self, image_id: str) -> None:
        SamserveError.__init__(self, f"text prompts need the pixels of {image_id}; send the image itself")
        self.image_id = image_id


class TextUnavailable(SamserveError):
    """A text prompt needs a model or package that is not installed; the message says what to install or to build."""


RETRY_AFTER_SECONDS = 1.0
"""Retry delay suggested where nothing better is known than that the cause has to pass."""


class TransientFailure(SamserveError):
    """Transient: a later retry may succeed.

    Attributes:
        retry_after_seconds: suggested retry delay.
    """

    def __init__(self, description: str, retry_after_seconds: float) -> None:
        super().__init__(description)
        self.retry_after_seconds = retry_after_seconds


class CapacityExceeded(TransientFailure):
    """Rejected because too much work is in flight. No work was queued.

    Attributes:
        reason: the limit that was reached, one of `SHED_REASONS`.
    """

    def __init__(self, description: str, retry_after_seconds: float, reason: str) -> None:
        super().__init__(description, retry_after_seconds)
        self.reason = reason


LIMITS = ("requests", "encodes", "generations", "streams")
"""Kinds of work in flight that a gateway counts and limits."""

SHED_REASONS = (*LIMITS, "deadline", "edits", "triton_queue")
"""The limits; and deadlines shorter than the requests in flight will take, session edits waiting for their image, and
Triton's own queues."""


class ModelUnavailable(TransientFailure):
    """The models cannot be reached or cannot answer."""


class ShuttingDown(TransientFailure):
    """The gateway is stopping and ends the stream; the client can open it on another gateway."""


class StreamIdle(SamserveError):
    """The stream was idle for too long: the client sent nothing, or did not read the answers."""
