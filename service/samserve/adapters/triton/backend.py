"""Follows the state of one Triton: up, down, hung, back, or back with another model."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping

from samserve.adapters.triton.connection import TritonConnection, TritonTimeout
from samserve.adapters.triton.session import TritonSession
from samserve.domain.errors import TransientFailure
from samserve.domain.manifest import ModelManifest
from samserve.usecases.warm_up import warm_up

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 2.0
_TIMEOUTS_TO_LOSE = 2
"""One late answer may come from a busy machine; a refused connection is unambiguous."""


class TritonBackend:
    """The models on Triton, whenever it is available.

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

    async def sessions(self) -> AsyncGenerator[TritonSession | None, None]:
        """Poll Triton's state twice a second.

        Yields:
            After each question the session that Triton serves, warmed up: the one before, if it serves the same build.
            None while it serves none.
        """
        while True:
            yield await self._look()
            await asyncio.sleep(_POLL_SECONDS)

    async def aclose(self) -> None:
        """End the session and close the connection."""
        if self._session is not None:
            await self._session.close()
        await self._connection.aclose()

    async def _look(self) -> TritonSession | None:
        try:
            await self._ask()
        except TritonTimeout as error:
            self._timeouts += 1
            if not self._is_up or self._timeouts >= _TIMEOUTS_TO_LOSE:
                self._lose(str(error))
        except TransientFailure as error:
            self._lose(str(error))
        except Exception as error:
            _log.exception("following Triton failed")
            self._lose(repr(error))
        else:
            self._timeouts = 0
        return self._session if self._is_up else None

    async def _ask(self) -> None:
        manifest = await self._connection.manifest()
        if self._session is not None and not (self._session.manifest == manifest and await self._session.attach()):
            self._lose("it serves another model now")
            session, self._session = self._session, None
            await session.close()
            # The consumer must learn of the end of this session before the next one is opened.
            return
        if self._is_up:
            return
        if self._session is None:
            self._session = await self._open(manifest)
        self._session.resume()
        self._is_up, self._failure = True, ""
        _log.info("Triton at %s serves %s, tensors by %s", self.address, manifest.model, self._session.transport)

    async def _open(self, manifest: ModelManifest) -> TritonSession:
        session = await TritonSession.open(self._connection, manifest, self._cache_bytes, self._scratch_bytes)
        try:
            await warm_up(manifest, session.encoder, session.decoder)
        except BaseException:
            await session.close()
            raise
        return session

    def _lose(self, failure: str) -> None:
        if self._session is not None:
            self._session.suspend(failure)
        if failure != self._failure:
            _log.warning("not serving: %s", failure)
            self._failure = failure
        self._is_up = False

    @property
    def address(self) -> str:
        """Address of Triton."""
        return self._connection.address
