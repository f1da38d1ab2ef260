"""Text prompts: their limits, the crop of an object that is compared with them, and the selection of masks."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from samserve.domain.errors import InvalidPrompt
from samserve.domain.geometry import CropBox, ImageFrame
from samserve.domain.masks import Mask

MAX_TEXTS = 16
"""Largest number of texts of one request, which are one run of the text encoder."""

MAX_TEXT_CHARACTERS = 400
"""Largest number of characters of one text, checked before tokenisation. CLIP's 75 tokens are about 300 characters of
English."""

MAX_CANDIDATES = 256
"""Largest number of masks compared. With SAM's thresholds, a photo has about a hundred."""

CROPS_PER_RUN = 16
"""Largest number of crops per run of the image encoder. Engines are built for it."""

CROP_EXPANSION = 1.5
"""Side of a crop relative to the object's longer side: the middle of the range of 1 to 2 that SAM's authors trained
with (Segment Anything, appendix on text prompts)."""


def check_texts(texts: Sequence[str]) -> None:
    """Reject texts that are invalid for every model.

    Raises:
        InvalidPrompt: there are too many texts, or a text has no word or is too long.
    """
    if len(texts) > MAX_TEXTS:
        raise InvalidPrompt("prompts", f"has {len(texts)} texts, the limit is {MAX_TEXTS}; split the request")
    for index, text in enumerate(texts):
        path = f"prompts[{index}].text"
        if not text.strip():
            raise InvalidPrompt(path, "empty; describe the object, such as 'a dog'")
        if len(text) > MAX_TEXT_CHARACTERS:
            raise InvalidPrompt(
                path, f"has {len(text)} characters, the limit is {MAX_TEXT_CHARACTERS}; shorten the text"
            )


def square_around(mask: Mask, frame: ImageFrame) -> CropBox:
    """The square around an object, in pixels of the model's input frame. It may exceed the image."""
    x0, y0, x1, y1 = frame.to_input(np.array(mask.bbox).reshape(2, 2)).ravel().tolist()
    side = max(1, round(CROP_EXPANSION * max(x1 - x0, y1 - y0)))
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    return CropBox(left, top, left + side, top + side)


def mask_in_square(mask: Mask, frame: ImageFrame, square: CropBox, side: int) -> npt.NDArray[np.bool_]:
    """Sample a mask in a square, scaled to bool `[side, side]` with the nearest pixels."""
    centres = (np.arange(side) + 0.5) / side
    original, scaled = frame.original_size, frame.input_size
    rows = (square.y0 + centres * square.size.height) * original.height / scaled.height - mask.top
    columns = (square.x0 + centres * square.size.width) * original.width / scaled.width - mask.left
    height, width = mask.window.shape
    rows, columns = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    in_rows, in_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    sampled = np.zeros((side, side), dtype=np.bool_)
    sampled[np.ix_(in_rows, in_columns)] = mask.window[np.ix_(rows[in_rows], columns[in_columns])]
    return sampled


def most_similar(similarities: npt.NDArray[np.float32], count: int) -> list[int]:
    """The up to `count` candidates with the highest similarities `[C]`, highest first; ties in the given order."""
    order: list[int] = np.argsort(-similarities, kind="stable")[:count].tolist()
    return order
