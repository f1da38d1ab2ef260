"""Following one Triton: up, gone, hung, back, back with another model."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from samserve.adapters.triton.connection import TritonConnection, TritonTimeout
from samserve.adapters.triton.session import TritonSession
from samserve.domain.errors import RetryLater

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 2.0
_TIMEOUTS_TO_LOSE = 2
"""One late answer is a busy machine; a refused connection needs no second."""


Up = Callable[[TritonSession], Awaitable[None]]
Down = Callable[[], Awaitable[None]]


class TritonBackend:
    """The models on Triton, whenever it is there.

    Args:
        address: `host:port` of Triton's gRPC service.
        cache_bytes: of the slab of embeddings, where memory is shared.
        scratch_bytes: for the other tensors of requests in flight; 0 rules shared memory out.
        infer_seconds: the longest that a model's run takes.
        headers: what a model's run is sent along with.
        encoder_address: of the Triton that serves the image encoder, if it is another.
    """

    def __init__(
        self,
        address: str,
        *,
        cache_bytes: int,
        scratch_bytes: int,
        infer_seconds: float,
        headers: Callable[[], Mapping[str, str]],
        encoder_address: str | None = None,
    ) -> None:
        self._connection = TritonConnection(address, _ANSWER_SECONDS, infer_seconds, headers, encoder_address)
        self._cache_bytes = cache_bytes
        self._scratch_bytes = scratch_bytes
        self._session: TritonSession | None = None
        self._is_up = False
        self._failure = ""
        self._timeouts = 0

    async def follow(self, up: Up, down: Down) -> None:
        """Ask how Triton is, twice a second, until cancelled.

        Args:
            up: is told that Triton serves, and by which session: the one before, if it serves the same build. It may
                raise what the models raise, and is called again later.
            down: is told that Triton serves no more.
        """
        while True:
            await self.look(up, down)
            await asyncio.sleep(_POLL_SECONDS)

    async def look(self, up: Up, down: Down) -> None:
        """Ask once. See `follow`."""
        try:
            await self._look(up, down)
        except TritonTimeout as error:
            self._timeouts += 1
            if not self._is_up or self._timeouts >= _TIMEOUTS_TO_LOSE:
                await self._lose(str(error), down)
        except RetryLater as error:
            await self._lose(str(error), down)
        except Exception as error:
            _log.exception("following Triton failed")
            await self._lose(repr(error), down)
        else:
            self._timeouts = 0

    async def aclose(self) -> None:
        """End the session and close the connection."""
        if self._session is not None:
            await self._session.close()
        await self._connection.aclose()

    async def _look(self, up: Up, down: Down) -> None:
        manifest = await self._connection.manifest()
        if self._session is not None and not (self._session.manifest == manifest and await self._session.attach()):
            await self._lose("it serves another model now", down)
            await self._session.close()
            self._session = None
        if self._session is None:
            self._session = await TritonSession.open(self._connection, manifest, self._cache_bytes, self._scratch_bytes)
        if not self._is_up:
            self._session.resume()
            await up(self._session)
            self._is_up, self._failure = True, ""
            _log.info("Triton at %s serves %s, tensors by %s", self.address, manifest.model, self._session.transport)

    async def _lose(self, failure: str, down: Down) -> None:
        if self._session is not None:
            self._session.suspend(failure)
        if failure != self._failure:
            _log.warning("not serving: %s", failure)
            self._failure = failure
        if self._is_up:
            self._is_up = False
            await down()

    @property
    def address(self) -> str:
        """Of Triton."""
        return self._connection.address
