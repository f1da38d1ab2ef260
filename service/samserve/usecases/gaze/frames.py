"""The frames of a gaze stream: the current frame, and the keyframe (an encoded frame) that represents it."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from samserve.domain import homography as plane
from samserve.domain.camera_motion import Thumbnail, estimate_motion
from samserve.domain.embedding import Embedding
from samserve.domain.errors import InvalidImage, SamserveError, within
from samserve.domain.geometry import Size
from samserve.domain.homography import Homography
from samserve.domain.keyframes import KeyframePolicy, motion, scene_change
from samserve.usecases.embedder import ImageEmbedder, ImageInput
from samserve.usecases.load.rate_limit import TenantRateLimiter
from samserve.usecases.observers import GazeObserver
from samserve.usecases.ports import EmbeddingSource, ThumbnailReader

EstimateMotion: TypeAlias = Callable[[Thumbnail, Thumbnail, Homography], Homography | None]


@dataclass(frozen=True, slots=True, eq=False)
class GazeFrame:
    """One camera frame.

    Attributes:
        sequence: the client's number; rises.
        reference: from this frame's pixels to a plane that stays fixed during the stream, where the client knows it.
    """

    sequence: int
    image: ImageInput
    reference: Homography | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Keyframe:
    """An encoded frame.

    Attributes:
        thumbnail: None where the frame came by its id alone.
        encoded_seconds: by the clock, when it was wanted.
        previous: the keyframe before it, and the map from this one's pixels to that one's, where it is known.
    """

    sequence: int
    embedding: Embedding
    thumbnail: Thumbnail | None
    reference: Homography | None
    encoded_seconds: float
    previous: "tuple[int, Homography] | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The current frame relative to its keyframe.

    Attributes:
        sequence: of the frame.
        to_keyframe: from the frame's pixels to the keyframe's.
    """

    sequence: int
    keyframe: Keyframe
    to_keyframe: Homography


@dataclass(slots=True, eq=False)
class _Seen:
    frame: GazeFrame
    thumbnail: Thumbnail | None
    laid: tuple[int, Homography] | None = None


class GazeFrames:
    """Registers each frame with the keyframe, and encodes a new keyframe when the old one is stale.

    The latest frame wins: one is looked at at a time, one is encoded at a time, and of those that wait for either only
    the newest is kept. So a stream holds five files at most, the one that was looked at last included.

    Args:
        encode_rate: limit of all streams of a user, beside the stream's own, which `policy` says.
        report: is told of frames that were refused, by their sequence.
        fail: is told of faults of ours.
        clock: seconds, for the age of keyframes and the rate of encodes.
    """

    def __init__(
        self,
        *,
        tenant: str,
        encode_rate: TenantRateLimiter,
        embedder: ImageEmbedder,
        thumbnails: ThumbnailReader,
        policy: KeyframePolicy,
        observer: GazeObserver,
        report: Callable[[int, SamserveError], None],
        fail: Callable[[BaseException], None],
        estimate_motion: EstimateMotion = estimate_motion,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tenant = tenant
        self._encode_rate = encode_rate
        # Users without a tenant cannot be distinguished, and one must not block the others, so each stream counts as a
        # user.
        self._user: Hashable = tenant or self
        self._embedder = embedder
        self._thumbnails = thumbnails
        self._policy = policy
        self._observer = observer
        self._report = report
        self._fail = fail
        self._estimate_motion = estimate_motion
        self._clock = clock
        self.size: Size | None = None
        self.view: View | None = None
        self.received = self.dropped = self.keyframes = 0
        self._last_sequence = -1
        self._offered: GazeFrame | None = None
        self._latest: _Seen | None = None
        self._wanted: _Seen | None = None
        self._next_encode_seconds = 0.0
        self._news = asyncio.Event()
        self._encoding: asyncio.Task[None] | None = None
        self._following = self._start(self._follow())

    @property
    def pending(self) -> bool:
        """True while a frame is being encoded or waits for it."""
        return self._encoding is not None

    def offer(self, frame: GazeFrame) -> None:
        """Take in a frame; returns at once.

        Raises:
            InvalidImage: its number does not rise, or its homography is not one; names the field of the frame.
        """
        if frame.sequence <= self._last_sequence:
            raise InvalidImage(
                "sequence", f"must be above the last frame's {self._last_sequence}, got {frame.sequence}"
            )
        if frame.reference is not None and not plane.is_invertible(frame.reference):
            raise InvalidImage("reference_homography", "must be finite and invertible; omit it if it is not known")
        self._last_sequence = frame.sequence
        self.received += 1
        self._observer.gaze_frame("received")
        if self._offered is not None:
            self.dropped += 1
            self._observer.gaze_frame("dropped")
        self._offered = frame
        self._news.set()

    async def close(self) -> None:
        """Stop all work and discard the frames."""
        tasks = [task for task in (self._following, self._encoding) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        def ended(task: "asyncio.Task[None]") -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._fail(error)

        task = asyncio.create_task(work)
        task.add_done_callback(ended)
        return task

    async def _follow(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            frame, self._offered = self._offered, None
            try:
                if frame is not None:
                    self._latest = await self._look(frame)
                if self._latest is not None:
                    await self._lay(self._latest)
            except SamserveError as error:
                self._refuse(frame.sequence if frame else 0, error)

    async def _look(self, frame: GazeFrame) -> _Seen:
        if frame.image.data is None:
            return _Seen(frame, None)
        with within(frame.image.field):
            thumbnail = await self._thumbnails.thumbnail(frame.image.data)
        self._check_size(thumbnail.original_size)
        return _Seen(frame, thumbnail)

    async def _lay(self, seen: _Seen) -> None:
        keyframe = self._keyframe
        if keyframe is None:
            self._want(seen)
            return
        if seen.frame.sequence <= keyframe.sequence:
            return
        assert self.size is not None
        to_keyframe = await self._motion(keyframe, seen)
        change = 0.0
        if to_keyframe is not None and keyframe.thumbnail is not None and seen.thumbnail is not None:
            grays = keyframe.thumbnail.gray, seen.thumbnail.gray
            change = await asyncio.to_thread(scene_change, *grays, to_keyframe, self.size)
        if self._keyframe is not keyframe:
            # A new keyframe was adopted meanwhile; registering this frame with it has already been requested.
            return
        if to_keyframe is None:
            self._want(seen)
            return
        seen.laid = (keyframe.sequence, to_keyframe)
        self.view = View(seen.frame.sequence, keyframe, to_keyframe)
        age = self._clock() - keyframe.encoded_seconds
        if self._policy.is_outdated(change, motion(to_keyframe, self.size), age):
            self._want(seen)

    async def _motion(self, keyframe: Keyframe, seen: _Seen) -> Homography | None:
        assert self.size is not None
        if keyframe.reference is not None and seen.frame.reference is not None:
            known = plane.between(keyframe.reference, seen.frame.reference)
            return known if plane.is_plausible(known, self.size) else None
        if keyframe.thumbnail is None or seen.thumbnail is None:
            return None
        if np.array_equal(keyframe.thumbnail.gray, seen.thumbnail.gray):
            return plane.IDENTITY
        guess = self.view.to_keyframe if self.view is not None and self.view.keyframe is keyframe else plane.IDENTITY
        return await asyncio.to_thread(self._estimate_motion, keyframe.thumbnail, seen.thumbnail, guess)

    def _want(self, seen: _Seen) -> None:
        self._wanted = seen
        if self._encoding is None:
            self._encoding = self._start(self._encode())

    async def _encode(self) -> None:
        try:
            while self._wanted is not None:
                if self._wanted.frame.image.data is not None:
                    await asyncio.sleep(self._next_encode_seconds - self._clock())
                    await self._encode_rate.turn(self._user)
                seen, self._wanted = self._wanted, None
                started = self._clock()
                try:
                    embedded = await self._embedder.embed(seen.frame.image, self._tenant, self._check_size)
                except SamserveError as error:
                    self._next_encode_seconds = started + 1 / self._policy.max_encodes_per_second
                    self._refuse(seen.frame.sequence, error)
                    continue
                if embedded.source is EmbeddingSource.ENCODED:
                    self._next_encode_seconds = started + 1 / self._policy.max_encodes_per_second
                elif seen.frame.image.data is not None:
                    self._encode_rate.give_back(self._user)
                self._adopt(seen, embedded.embedding, started)
        finally:
            self._encoding = None

    def _adopt(self, seen: _Seen, embedding: Embedding, started: float) -> None:
        old, frame = self._keyframe, seen.frame
        previous = seen.laid if old is not None and seen.laid is not None and seen.laid[0] == old.sequence else None
        keyframe = Keyframe(frame.sequence, embedding, seen.thumbnail, frame.reference, started, previous)
        self.view = View(frame.sequence, keyframe, plane.IDENTITY)
        self.keyframes += 1
        self._observer.gaze_frame("keyframe")
        # The frame that was wanted with the old keyframe may be unnecessary with the new one.
        self._wanted = None
        if self._latest is not None and self._latest is not seen:
            self._news.set()

    def _check_size(self, size: Size) -> None:
        if self.size is None:
            self.size = size
        elif size != self.size:
            (height, width), first = size, self.size
            raise InvalidImage(
                "image",
                f"must be {first.width} x {first.height} like the stream's first frame, got {width} x {height}; open a"
                " new stream for another size",
            )

    def _refuse(self, sequence: int, error: SamserveError) -> None:
        self._observer.gaze_frame("refused")
        self._report(sequence, error)

    @property
    def _keyframe(self) -> Keyframe | None:
        return self.view.keyframe if self.view is not None else None
