"""The models in process, on ONNX Runtime's CPU provider."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from samserve.domain.clip_manifest import IMAGE_ENCODER, TEXT_ENCODER, ClipManifest
from samserve.domain.embedding import Embedding
from samserve.domain.errors import ModelUnavailable
from samserve.domain.manifest import DECODER, ENCODER, InvalidManifest
from samserve.domain.prompts import PromptBatch
from samserve.usecases.load.thread_pools import available_cores, compute_threads
from samserve.usecases.ports import DecodedImage, DecodedMasks, EncodedImage
from samserve.usecases.timings import Stage, StageTimings

_RETRY_AFTER_SECONDS = 1.0

_PROMPTS_PER_RUN = 8
"""What most calls have. Calls of one run end in the order in which they came; divided ones delay each other, and where
more is asked for than can be done, more of them would end too late."""

Arrays = dict[str, npt.NDArray[Any]]


class _Run(NamedTuple):
    """What a graph answered; and when it was asked for, began and ended, by `time.perf_counter`."""

    outputs: Arrays
    queued: float
    began: float
    ended: float


class _Engine:
    """One graph and the threads that run it: the executor's queue is the graph's queue."""

    def __init__(self, path: Path, concurrency: int, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Waiting threads that spin would take the processor from the gateway's own work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not path.is_file():
            raise InvalidManifest(f"{path} is missing; build the models with build_engines.py")
        self._executor = compute_threads(concurrency, path.parts[-3])
        # The session's own threads inherit the niceness of the one that makes it.
        make = partial(onnxruntime.InferenceSession, path, options, providers=["CPUExecutionProvider"])
        self._session: Any = self._executor.submit(make).result()
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._queue: set[object] = set()

    @property
    def queued(self) -> int:
        """Runs that wait for a thread."""
        return len(self._queue)

    async def run(self, inputs: Arrays) -> _Run:
        """Run the graph; what is cancelled in the queue never runs."""
        queued = time.perf_counter()
        place = object()

        def work() -> _Run:
            self._queue.discard(place)
            began = time.perf_counter()
            outputs = self._session.run(self._outputs, inputs)
            return _Run(dict(zip(self._outputs, outputs, strict=True)), queued, began, time.perf_counter())

        self._queue.add(place)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except RuntimeError as error:  # ONNX Runtime's exceptions are RuntimeErrors, and so is a stopped executor's
            raise ModelUnavailable(f"ONNX Runtime failed: {error}", _RETRY_AFTER_SECONDS) from error
        finally:
            self._queue.discard(place)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        # Hundreds of megabytes, which whoever still knows the runner would keep.
        self._session = None


class OnnxRuntimeImageEncoder:
    """Implements `ImageEncoder`: one image at a time, on all threads.

    Args:
        repository: a model repository with `sam_image_encoder/1/model.onnx`.
        threads: of one run; 0 takes the machine's cores.
    """

    def __init__(self, repository: Path, threads: int = 0) -> None:
        self._engine = _Engine(repository / ENCODER / "1" / "model.onnx", 1, threads)

    @property
    def queued(self) -> int:
        """Images that wait for the encoder."""
        return self._engine.queued

    async def encode(self, image: DecodedImage) -> EncodedImage:
        """See `ImageEncoder.encode`."""
        inputs: Arrays = {"image": image.pixels[None], "input_size": np.array([image.frame.input_size], dtype=np.int32)}
        run = await self._engine.run(inputs)
        timings = StageTimings({Stage.QUEUE: run.began - run.queued, Stage.ENCODE: run.ended - run.began})
        return EncodedImage(run.outputs["image_embeddings"][0], timings)

    def close(self) -> None:
        """Stop the worker."""
        self._engine.close()


class OnnxRuntimeMaskDecoder:
    """Implements `MaskDecoder`: each run on one thread, which gives more runs a second than one run on all.

    Many prompts are several runs, so that one call may take every core, and yet those that come after it wait for some
    of its prompts only.

    Args:
        repository: a model repository with `sam_mask_decoder/1/model.onnx`.
        threads: how many runs there are at a time; 0: the machine's cores.
    """

    def __init__(self, repository: Path, threads: int = 0) -> None:
        self._concurrency = threads or available_cores()
        self._engine = _Engine(repository / DECODER / "1" / "model.onnx", self._concurrency, 1)

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        """See `MaskDecoder.decode`. The computation is from the first run's beginning to the last one's end."""
        starts = range(0, len(prompts), _PROMPTS_PER_RUN)
        left = iter(starts)
        done: dict[int, _Run] = {}

        async def work() -> None:
            for start in left:
                some = slice(start, start + _PROMPTS_PER_RUN)
                inputs: Arrays = {
                    "image_embeddings": embedding.values[None],
                    "point_coords": prompts.point_coords[None, some],
                    "point_labels": prompts.point_labels[None, some],
                    "mask_input": prompts.mask_input[None, some],
                    "has_mask_input": prompts.has_mask_input[None, some],
                }
                done[start] = await self._engine.run(inputs)

        workers = [asyncio.ensure_future(work()) for _ in range(min(self._concurrency, len(starts)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        runs = [done[start] for start in starts]
        # Large copies, which the event loop should not wait for; and none for a click.
        outputs = runs[0].outputs if len(runs) == 1 else await asyncio.to_thread(_joined, runs)
        queued, began = min(run.queued for run in runs), min(run.began for run in runs)
        ended = max(run.ended for run in runs)
        timings = StageTimings({Stage.QUEUE: began - queued, Stage.MASK_DECODE: ended - began})
        return DecodedMasks(outputs["low_res_masks"][0], outputs["iou_predictions"][0], timings)

    def close(self) -> None:
        """Stop the workers."""
        self._engine.close()


def _joined(runs: Sequence[_Run]) -> Arrays:
    """The outputs of all prompts, in the order of their runs."""
    return {name: np.concatenate([run.outputs[name] for run in runs], axis=1) for name in runs[0].outputs}


class OnnxRuntimeTextRanker:
    """Implements `TextRanker`.

    Args:
        repository: a model repository with CLIP's two graphs.
        manifest: of these.
        threads: of one run; 0 takes the machine's cores.
    """

    def __init__(self, repository: Path, manifest: ClipManifest, threads: int = 0) -> None:
        self.image_size = manifest.image_size
        self._texts, self._images = (
            _Engine(repository / model / "1" / "model.onnx", 1, threads) for model in (TEXT_ENCODER, IMAGE_ENCODER)
        )

    async def embed_texts(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """See `TextRanker.embed_texts`."""
        return (await self._texts.run({"input_ids": tokens})).outputs["text_embeds"]

    async def embed_crops(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `TextRanker.embed_crops`."""
        return (await self._images.run({"image": crops})).outputs["image_embeds"]

    def close(self) -> None:
        """Stop the workers."""
        self._texts.close()
        self._images.close()
