"""The models in the gateway's process, on ONNX Runtime's CPU provider."""

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
from samserve.domain.errors import RETRY_AFTER_SECONDS, ModelUnavailable
from samserve.domain.manifest import DECODER, ENCODER, InvalidManifest
from samserve.domain.prompts import PromptBatch
from samserve.usecases.load.thread_pools import available_cores, compute_threads
from samserve.usecases.ports import DecodedImage, DecodedMasks, EncodedImage
from samserve.usecases.timings import Stage, StageTimings

_PROMPTS_PER_RUN = 8
"""Number of prompts that most calls have. Calls with one run finish in order of arrival. Divided calls delay each
other, so under overload more of them would finish too late."""

Arrays = dict[str, npt.NDArray[Any]]


class _Run(NamedTuple):
    """Outputs of a graph, and the times by `time.perf_counter` when it was requested, started and finished."""

    outputs: Arrays
    queued: float
    began: float
    ended: float


class _Graph:
    """One graph and the threads that run it. The executor's queue is the graph's queue."""

    def __init__(self, path: Path, concurrency: int, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads would take CPU time from the gateway's other work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not path.is_file():
            raise InvalidManifest(f"{path} is missing; build the models with build_engines.py")
        self._executor = compute_threads(concurrency, path.parts[-3])
        # The session's own threads inherit the niceness of the thread that creates it.
        make = partial(onnxruntime.InferenceSession, path, options, providers=["CPUExecutionProvider"])
        self._session: Any = self._executor.submit(make).result()
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._queue: set[object] = set()

    @property
    def queued(self) -> int:
        """Number of runs that wait for a thread."""
        return len(self._queue)

    async def run(self, inputs: Arrays) -> _Run:
        """Run the graph. A run that is cancelled in the queue does not start."""
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
        except RuntimeError as error:  # ONNX Runtime raises RuntimeError, and so does a stopped executor
            raise ModelUnavailable(f"ONNX Runtime failed: {error}", RETRY_AFTER_SECONDS) from error
        finally:
            self._queue.discard(place)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        # Frees hundreds of megabytes even if the runner is still referenced.
        self._session = None


class OnnxRuntimeImageEncoder:
    """Implements `ImageEncoder`: one image at a time, on all threads.

    Args:
        repository: a model repository with `sam_image_encoder/1/model.onnx`.
        threads: of one run; 0 takes the machine's cores.
    """

    def __init__(self, repository: Path, threads: int = 0) -> None:
        self._graph = _Graph(repository / ENCODER / "1" / "model.onnx", 1, threads)

    @property
    def queued(self) -> int:
        """Number of images that wait for the encoder."""
        return self._graph.queued

    async def encode(self, image: DecodedImage) -> EncodedImage:
        """Encode one image to its embedding."""
        inputs: Arrays = {"image": image.pixels[None], "input_size": np.array([image.frame.input_size], dtype=np.int32)}
        run = await self._graph.run(inputs)
        timings = StageTimings({Stage.QUEUE: run.began - run.queued, Stage.ENCODE: run.ended - run.began})
        return EncodedImage(run.outputs["image_embeddings"][0], timings)

    def close(self) -> None:
        """Stop the worker."""
        self._graph.close()


class OnnxRuntimeMaskDecoder:
    """Implements `MaskDecoder`. Each run uses one thread, which gives a higher throughput than one run on all threads.

    Calls with many prompts are divided into several runs, so that one call can use every core, but later calls wait
    only for some of its prompts.

    Args:
        repository: a model repository with `sam_mask_decoder/1/model.onnx`.
        threads: number of concurrent runs; 0 means the machine's number of cores.
    """

    def __init__(self, repository: Path, threads: int = 0) -> None:
        self._concurrency = threads or available_cores()
        self._graph = _Graph(repository / DECODER / "1" / "model.onnx", self._concurrency, 1)

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        """Decode the masks of all prompts. Compute time spans the start of the first run to the end of the last."""
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
                done[start] = await self._graph.run(inputs)

        workers = [asyncio.ensure_future(work()) for _ in range(min(self._concurrency, len(starts)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        runs = [done[start] for start in starts]
        # Copies are large, so they are made outside the event loop; a single run needs none.
        outputs = runs[0].outputs if len(runs) == 1 else await asyncio.to_thread(_joined, runs)
        queued, began = min(run.queued for run in runs), min(run.began for run in runs)
        ended = max(run.ended for run in runs)
        timings = StageTimings({Stage.QUEUE: began - queued, Stage.MASK_DECODE: ended - began})
        return DecodedMasks(outputs["low_res_masks"][0], outputs["iou_predictions"][0], timings)

    def close(self) -> None:
        """Stop the workers."""
        self._graph.close()


def _joined(runs: Sequence[_Run]) -> Arrays:
    """Join the outputs of all prompts, in the order of their runs."""
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
            _Graph(repository / model / "1" / "model.onnx", 1, threads) for model in (TEXT_ENCODER, IMAGE_ENCODER)
        )

    async def embed_texts(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Embed texts with CLIP's text encoder."""
        return (await self._texts.run({"input_ids": tokens})).outputs["text_embeds"]

    async def embed_crops(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed crops with CLIP's image encoder."""
        return (await self._images.run({"image": crops})).outputs["image_embeds"]

    def close(self) -> None:
        """Stop the workers."""
        self._texts.close()
        self._images.close()
