"""gRPC handler of `Segment` with text prompts."""

import time

from samserve.adapters.grpc.masks import mask_message, read_mask_format
from samserve.adapters.grpc.messages import is_cached, read_image, size_message, source_message, timings_message
from samserve.domain.errors import InvalidParameter, InvalidPrompt, TextUnavailable, within
from samserve.domain.texts import check_texts
from samserve.observability.call import current_call
from samserve.usecases.text_prompts import RankedMask, TextQuery, TextSegmenter
from samserve.v1 import segmentation_pb2 as pb

_NOT_BESIDE_TEXT = ("points", "box", "mask_input", "detection")
_MASKS = {False: 1, True: 3}
"""Number of masks, by `multimask_output`."""


def has_text(request: pb.SegmentRequest) -> bool:
    """Return True if any prompt is a text."""
    return any(prompt.HasField("text") for prompt in request.prompts)


class TextHandler:
    """Reads the request, runs the use case, and writes the response.

    Args:
        segmenter: or why there is none.
    """

    def __init__(self, segmenter: TextSegmenter | TextUnavailable, *, max_image_bytes: int) -> None:
        self._segmenter = segmenter
        self._max_image_bytes = max_image_bytes

    @property
    def available(self) -> bool:
        """True if text prompts are supported."""
        return not isinstance(self._segmenter, TextUnavailable)

    async def segment(self, request: pb.SegmentRequest, tenant: str) -> pb.SegmentResponse:
        started = time.perf_counter()
        texts = _read_texts(request)
        if request.mask_format == pb.MASK_FORMAT_LOW_RES_LOGITS:
            raise InvalidParameter(
                "mask_format", "LOW_RES_LOGITS is not supported with text prompts; use COCO_RLE, PNG or POLYGONS"
            )
        if request.include_low_res_masks:
            raise InvalidParameter("include_low_res_masks", "not supported with text prompts; unset it")
        mask_format = read_mask_format(request.mask_format)
        image = read_image(request.image, self._max_image_bytes)
        if isinstance(self._segmenter, TextUnavailable):
            # Errors that the caller must fix on every server come first.
            check_texts(texts)
            raise TextUnavailable(str(self._segmenter))
        query = TextQuery(image, texts, _MASKS[request.multimask_output], mask_format, tenant)
        found = await self._segmenter.segment(query)
        embedded = found.embedded
        current_call().prompted(len(texts))
        current_call().answered(found.timings)
        return pb.SegmentResponse(
            image_id=embedded.image_id,
            original_size=size_message(embedded.embedding.frame.original_size),
            results=[pb.PromptResult(masks=map(_ranked_message, masks)) for masks in found.results],
            embedding_source=source_message(embedded),
            cached=is_cached(embedded),
            timings=timings_message(found.timings, time.perf_counter() - started),
            notes=embedded.notes,
        )


def _read_texts(request: pb.SegmentRequest) -> list[str]:
    for index, prompt in enumerate(request.prompts):
        with within(f"prompts[{index}]"):
            if not prompt.HasField("text"):
                raise InvalidPrompt(
                    "", "not a text, but other prompts of this request are; send text prompts in a separate request"
                )
            for field, _ in prompt.ListFields():
                if field.name in _NOT_BESIDE_TEXT:
                    raise InvalidPrompt(field.name, "cannot be combined with text; set one of the two")
    return [prompt.text for prompt in request.prompts]


def _ranked_message(ranked: RankedMask) -> pb.Mask:
    message = mask_message(ranked.mask)
    message.text_similarity = ranked.similarity
    return message
