"""gRPC handlers of `GenerateMasks` and `DetectEdges`."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import fields, replace
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from samserve.adapters.grpc.masks import mask_message, read_mask_format
from samserve.adapters.grpc.messages import is_cached, read_image, size_message, source_message, timings_message
from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.errors import InvalidParameter
from samserve.observability.call import current_call
from samserve.usecases.automatic import (
    AcceptedMask,
    AutomaticMaskGenerator,
    GenerationEvent,
    GenerationFinished,
    GenerationProgress,
    GenerationQuery,
    GenerationStarted,
)
from samserve.usecases.edges import EdgeDetector
from samserve.usecases.timings import Stage, StageTimings
from samserve.v1 import segmentation_pb2 as pb

_PARAMETERS = {field.name for field in fields(AutomaticMaskParameters)}


class AutomaticHandler:
    """Reads the requests of both methods, runs the use cases, and writes the responses."""

    def __init__(
        self,
        *,
        generator: AutomaticMaskGenerator,
        edge_detector: EdgeDetector,
        defaults: AutomaticMaskParameters,
        max_image_bytes: int,
    ) -> None:
        self._defaults = defaults
        self._generator = generator
        self._edge_detector = edge_detector
        self._max_image_bytes = max_image_bytes

    async def generate_masks(
        self, request: pb.GenerateMasksRequest, tenant: str
    ) -> AsyncGenerator[pb.GenerateMasksResponse, None]:
        started = time.perf_counter()
        if request.mask_format == pb.MASK_FORMAT_LOW_RES_LOGITS:
            raise InvalidParameter(
                "mask_format", "LOW_RES_LOGITS is not supported by GenerateMasks; use COCO_RLE, PNG or POLYGONS"
            )
        mask_format = read_mask_format(request.mask_format)
        given = {field.name: value for field, value in request.ListFields() if field.name in _PARAMETERS}
        image = read_image(request.image, self._max_image_bytes)
        query = GenerationQuery(image, replace(self._defaults, **given), tenant)
        async with aclosing(self._generator.generate(query, mask_format)) as events:
            async for event in events:
                if isinstance(event, GenerationFinished):
                    current_call().answered(event.timings)
                yield _event_message(event, started)

    async def detect_edges(self, request: pb.DetectEdgesRequest, tenant: str) -> pb.DetectEdgesResponse:
        started = time.perf_counter()
        image = read_image(request.image, self._max_image_bytes)
        detected = await self._edge_detector.detect(image, tenant)
        detected_at = time.perf_counter()
        png = await asyncio.to_thread(_png, detected.edges)
        timings = detected.timings + StageTimings({Stage.POST_PROCESS: time.perf_counter() - detected_at})
        embedded = detected.embedded
        current_call().answered(timings)
        return pb.DetectEdgesResponse(
            image_id=embedded.image_id,
            original_size=size_message(embedded.embedding.frame.original_size),
            png=png,
            embedding_source=source_message(embedded),
            cached=is_cached(embedded),
            timings=timings_message(timings, time.perf_counter() - started),
        )


def _event_message(event: GenerationEvent, started: float) -> pb.GenerateMasksResponse:
    match event:
        case GenerationStarted():
            return pb.GenerateMasksResponse(
                started=pb.GenerationStarted(
                    image_id=event.embedded.image_id,
                    original_size=size_message(event.embedded.embedding.frame.original_size),
                    points_total=event.points_total,
                    embedding_source=source_message(event.embedded),
                    cached=is_cached(event.embedded),
                )
            )
        case GenerationProgress():
            progress = pb.GenerationProgress(points_done=event.points_done, points_total=event.points_total)
            return pb.GenerateMasksResponse(progress=progress)
        case AcceptedMask():
            x, y = event.point
            x0, y0, x1, y1 = event.crop_box
            return pb.GenerateMasksResponse(
                mask=pb.GeneratedMask(
                    mask=mask_message(event.mask),
                    point=pb.Point(x=x, y=y, label=pb.POINT_LABEL_FOREGROUND),
                    crop_box=pb.Box(x0=x0, y0=y0, x1=x1, y1=y1),
                )
            )
        case GenerationFinished():
            timings = timings_message(event.timings, time.perf_counter() - started)
            finished = pb.GenerationFinished(mask_count=event.masks, timings=timings)
            return pb.GenerateMasksResponse(finished=finished)


def _png(edges: npt.NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(edges).save(file, "PNG")
    return file.getvalue()
