"""Prompts as given by a user, and their conversion to the decoder graph's inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Token labels in addition to 0 and 1, which are background and foreground points.
BOX_TOP_LEFT = 2
BOX_BOTTOM_RIGHT = 3
NOT_A_POINT = -1
ABSENT = -10

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, in pixels of the model's input frame.

    Attributes:
        points: `(x, y)` of each point.
        labels: 1 foreground or 0 background, one for each point.
        box: `(x0, y0, x1, y1)`.
        mask: float32 `[M, M]`, low-resolution logits of an earlier answer.
    """

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: FloatArray | None = None

    def tokens(self) -> tuple[FloatArray, IntArray]:
        """SAM's tokens for the points and the box: coordinates `[N, 2]` and labels `[N]`, N may be 0.

        Points come first. Without a box SAM adds a padding point, which takes part in attention.
        """
        coords, labels = list(self.points), list(self.labels)
        if self.box is not None:
            coords += [self.box[:2], self.box[2:]]
            labels += [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
        elif self.points:
            coords.append((0.0, 0.0))
            labels.append(NOT_A_POINT)
        return np.array(coords, np.float32).reshape(-1, 2), np.array(labels, np.int32)


class PromptTensors(NamedTuple):
    """The decoder graph's inputs except the embeddings, in its order. `MaskDecoderGraph.forward` describes them."""

    point_coords: FloatArray
    point_labels: IntArray
    mask_input: FloatArray
    has_mask_input: FloatArray


def prompt_tensors(rows: Sequence[Sequence[Prompt]], low_res_size: int, min_tokens: int = 1) -> PromptTensors:
    """Batch prompts: B rows (one for each image) of P prompts, padded with absent tokens to the longest.

    Args:
        rows: the same number of prompts in every row.
        low_res_size: M of the model.
        min_tokens: pad to at least this length; the graph takes no prompt of length 0.
    """
    tokens = [[prompt.tokens() for prompt in row] for row in rows]
    longest = max(min_tokens, *(len(labels) for row in tokens for _, labels in row))
    shape = (len(rows), len(rows[0]))
    coords = np.zeros((*shape, longest, 2), np.float32)
    labels = np.full((*shape, longest), ABSENT, np.int32)
    masks = np.zeros((*shape, low_res_size, low_res_size), np.float32)
    has_mask = np.zeros(shape, np.float32)
    for row, prompts in enumerate(rows):
        for column, prompt in enumerate(prompts):
            own_coords, own_labels = tokens[row][column]
            coords[row, column, : len(own_labels)] = own_coords
            labels[row, column, : len(own_labels)] = own_labels
            if prompt.mask is not None:
                masks[row, column] = prompt.mask
                has_mask[row, column] = 1.0
    return PromptTensors(coords, labels, masks, has_mask)
