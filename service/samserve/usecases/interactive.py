"""The use case of interactive sessions: one image, an edited prompt, and refined masks."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from samserve.domain.edits import Edit, PromptHistory
from samserve.domain.errors import (
    RETRY_AFTER_SECONDS,
    CapacityExceeded,
    InvalidArgument,
    InvalidPrompt,
    SamserveError,
    within,
)
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import ModelManifest
from samserve.domain.masks import MULTIMASK, SINGLE_MASK, upsample_mask
from samserve.domain.prompts import (
    CoordinateSpace,
    ObjectPrompt,
    PromptLimits,
    batch_prompts,
    check_prompt,
    check_prompt_inside,
)
from samserve.domain.rendered_mask import MaskFormat, RenderedMask
from samserve.usecases.embedder import EmbeddingResult, ImageEmbedder, ImageInput
from samserve.usecases.mailbox import Mailbox
from samserve.usecases.ports import MaskDecoder, MaskRenderer
from samserve.usecases.timings import Stage, StageTimings

_MAX_WAITING = 64


@dataclass(frozen=True, slots=True, eq=False)
class SessionStart:
    """The image of a session, and the form of its answers."""

    image: ImageInput
    coordinate_space: CoordinateSpace = CoordinateSpace.PIXELS
    multimask_output: bool = False
    mask_format: MaskFormat = MaskFormat.COCO_RLE


@dataclass(frozen=True, slots=True, eq=False)
class PromptMasks:
    """The masks of the prompt after the edit of this number.

    Attributes:
        masks: none for an empty prompt.
        prompt: in `coordinate_space`, the session's.
    """

    sequence: int
    coordinate_space: CoordinateSpace
    embedded: EmbeddingResult
    masks: list[RenderedMask]
    prompt: ObjectPrompt
    undoable_edits: int
    timings: StageTimings


@dataclass(frozen=True, slots=True, eq=False)
class RefusedEdit:
    """A message that was rejected and changed nothing."""

    sequence: int
    error: SamserveError


class EditingSession:
    """One interactive session. Edits are applied as they arrive; only the prompt after the latest edit is decoded.

    An edit that comes while the prompt before it is decoded cancels that decode. The image is encoded meanwhile, and
    no edit cancels that.
    """

    def __init__(
        self,
        *,
        tenant: str,
        manifest: ModelManifest,
        embedder: ImageEmbedder,
        mask_decoder: MaskDecoder,
        mask_renderer: MaskRenderer,
        limits: PromptLimits,
    ) -> None:
        self._tenant = tenant
        self._manifest = manifest
        self._embedder = embedder
        self._mask_decoder = mask_decoder
        self._mask_renderer = mask_renderer
        self._limits = limits
        self._start: SessionStart | None = None
        self._embedding: asyncio.Task[EmbeddingResult] | None = None
        self._decoding: asyncio.Task[PromptMasks | RefusedEdit] | None = None
        self._size: Size | None = None
        self._history = PromptHistory()
        self._early: list[tuple[int, Edit]] = []
        self._sequence = -1
        # The number of the last edit whose prompt is not decoded yet.
        self._mailbox: Mailbox[int, RefusedEdit] = Mailbox()

    def start(self, sequence: int, start: SessionStart) -> None:
        """Start with an image, or with another image. The prompt is then empty."""
        if not self._accept(sequence):
            return
        self._cancel()
        self._start, self._size, self._history, self._early = start, None, PromptHistory(), []
        self._embedding = asyncio.create_task(self._embed(start))
        self._mailbox.put(sequence)

    def edit(self, sequence: int, edit: Edit) -> None:
        """Apply an edit; returns at once. `answers` reports rejected edits."""
        if not self._accept(sequence):
            return
        if self._start is None:
            self.refuse(sequence, _no_image())
        elif self._size is not None:
            self._apply(sequence, edit)
        elif len(self._early) < _MAX_WAITING:
            self._early.append((sequence, edit))
        else:
            error = CapacityExceeded(
                f"{_MAX_WAITING} edits already wait for the image to be encoded", RETRY_AFTER_SECONDS, "edits"
            )
            self.refuse(sequence, error)

    def refuse(self, sequence: int, error: SamserveError) -> None:
        """Report in `answers` that a message was rejected."""
        self._mailbox.refuse(RefusedEdit(sequence, error))

    def end(self, failure: BaseException | None = None) -> None:
        """End the input: `answers` ends after the last masks, or raises the failure."""
        self._mailbox.end(failure)

    @property
    def working(self) -> bool:
        """True while masks of the latest prompt are being computed."""
        return self._mailbox.latest is not None or self._decoding is not None

    async def close(self) -> None:
        """Stop all work and free all memory."""
        tasks = [task for task in (self._embedding, self._decoding) if task is not None]
        self._cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._history = PromptHistory()

    async def answers(self) -> AsyncGenerator[PromptMasks | RefusedEdit, None]:
        """Masks of the latest prompt, and rejections. For a single reader."""
        async with aclosing(self._mailbox.read()) as messages:
            async for message in messages:
                answer = message if isinstance(message, RefusedEdit) else await self._masks(message)
                if answer is not None:
                    yield answer

    def _accept(self, sequence: int) -> bool:
        if sequence <= self._sequence:
            error = InvalidArgument("sequence", f"must be above the last message's {self._sequence}, got {sequence}")
            self.refuse(sequence, error)
            return False
        self._sequence = sequence
        return True

    def _know_size(self, start: SessionStart, size: Size) -> None:
        if start is not self._start or self._size is not None:
            return
        self._size = size
        early, self._early = self._early, []
        for sequence, edit in early:
            self._apply(sequence, edit)

    def _apply(self, sequence: int, edit: Edit) -> None:
        assert self._size is not None
        assert self._start is not None
        try:
            with within(edit.name):
                changed = self._history.changed(edit)
                if not changed.is_empty:
                    self._check(changed.prompt(), self._start.coordinate_space, self._size)
        except InvalidPrompt as error:
            self.refuse(sequence, error)
            return
        self._history.push(changed, edit)
        self._mailbox.put(sequence)
        if self._decoding is not None:
            self._decoding.cancel()

    def _check(self, prompt: ObjectPrompt, space: CoordinateSpace, size: Size) -> None:
        try:
            check_prompt(prompt, self._limits, self._manifest.low_res_size)
            check_prompt_inside(prompt, space, size)
        except InvalidPrompt as error:
            # The earlier state was valid, so the error is in the edit's own point or box, whose fields have the same
            # names in the edit.
            raise InvalidPrompt(error.field.partition(".")[2], error.description) from None

    async def _embed(self, start: SessionStart) -> EmbeddingResult:
        with within("start_session"):
            return await self._embedder.embed(start.image, self._tenant, partial(self._know_size, start))

    async def _masks(self, sequence: int) -> PromptMasks | RefusedEdit | None:
        """The masks of the latest prompt, or None if a newer edit cancelled them."""
        task = self._decoding = asyncio.create_task(self._decode(sequence))
        try:
            # Awaits the task instead of its work, to distinguish its cancellation from the caller's.
            await asyncio.wait([task])
        finally:
            task.cancel()
            self._decoding = None
        return None if task.cancelled() else task.result()

    async def _decode(self, sequence: int) -> PromptMasks | RefusedEdit:
        assert self._embedding is not None
        assert self._start is not None
        start = self._start
        try:
            embedded = await asyncio.shield(self._embedding)
        except SamserveError as error:
            self._start = None
            for early, _ in self._early:
                self.refuse(early, _no_image())
            return RefusedEdit(sequence, error)
        try:
            step = self._history.current
            if step.is_empty:
                return PromptMasks(
                    sequence, start.coordinate_space, embedded, [], step.prompt(), self._history.depth, StageTimings()
                )
            frame = embedded.embedding.frame
            batch = batch_prompts([step.prompt()], start.coordinate_space, frame, self._manifest.low_res_size)
            decoded = await self._mask_decoder.decode(embedded.embedding, batch)
            chosen = MULTIMASK if start.multimask_output and step.is_ambiguous else SINGLE_MASK
            ious = decoded.iou_predictions[0, chosen]
            best = chosen.start + int(np.argmax(ious))
            started = time.perf_counter()
            low_res_masks = decoded.low_res_masks[0, chosen]
            masks = await asyncio.to_thread(self._render_all, low_res_masks, ious, frame, start.mask_format)
            timings = decoded.timings + StageTimings({Stage.POST_PROCESS: time.perf_counter() - started})
        except SamserveError as error:
            return RefusedEdit(sequence, error)
        self._history.answered(step, decoded.low_res_masks[0, best].copy())
        return PromptMasks(
            sequence, start.coordinate_space, embedded, masks, step.prompt(), self._history.depth, timings
        )

    def _render_all(
        self,
        low_res_masks: npt.NDArray[np.float32],
        ious: npt.NDArray[np.float32],
        frame: ImageFrame,
        mask_format: MaskFormat,
    ) -> list[RenderedMask]:
        return [
            self._mask_renderer.render(upsample_mask(low_res_mask, float(iou), frame), mask_format)
            for low_res_mask, iou in zip(low_res_masks, ious, strict=True)
        ]

    def _cancel(self) -> None:
        for task in (self._embedding, self._decoding):
            if task is not None:
                task.cancel()


def _no_image() -> InvalidArgument:
    return InvalidArgument("edit", "the session has no image; send start_session first")
