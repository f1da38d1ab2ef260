"""Texts as prompts: how much may be asked, which part of an image is compared with them, and which masks answer."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from samserve.domain.errors import InvalidPrompt
from samserve.domain.geometry import CropBox, ImageFrame
from samserve.domain.masks import Mask

MAX_TEXTS = 16
"""Of one request: a run of the text encoder."""

MAX_TEXT_CHARACTERS = 400
"""Of one text, before it is cut into tokens; CLIP's 75 tokens are some 300 characters of English."""

MAX_CANDIDATES = 256
"""Masks that are compared; SAM's thresholds leave some hundred of a photo."""

CROPS_PER_RUN = 16
"""The most crops of one run of the image encoder: engines are built for it."""

CROP_EXPANSION = 1.5
"""How much longer than the object the side of its crop is: the middle of what SAM's authors trained with, 1 to 2 times
(Segment Anything, appendix on text prompts)."""


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what no model could take.

    Raises:
        InvalidPrompt: too many texts, one without a word, or one that is too long to be looked at.
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
    """The square around an object, in pixels of the model's input frame; it may reach over the image's edges."""
    x0, y0, x1, y1 = frame.to_input(np.array(mask.bbox).reshape(2, 2)).ravel().tolist()
    side = max(1, round(CROP_EXPANSION * max(x1 - x0, y1 - y0)))
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    return CropBox(left, top, left + side, top + side)


def mask_in_square(mask: Mask, frame: ImageFrame, square: CropBox, side: int) -> npt.NDArray[np.bool_]:
    """What a mask is at the pixels of a square scaled to bool `[side, side]`: that of the nearest pixel."""
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
    """The candidates of the highest similarities `[C]`, at most `count`, the highest first; of equals the earlier."""
    order: list[int] = np.argsort(-similarities, kind="stable")[:count].tolist()
    return order
