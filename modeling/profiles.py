"""Optimization profiles of engines: the ranges of their dynamic dimensions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from modeling.tensorrt_builder import Shapes
from samserve.domain.manifest import DECODER, ENCODER

if TYPE_CHECKING:
    # It brings torch, for which the check of the command's flags does not wait.
    from modeling.architectures import ModelSizes

MAX_TOKENS = 128
"""Maximum number of points of one prompt in the decoder, including box corners and padding. The gateway allows 126
points in addition to a box and rounds up to a power of two."""


class Range(NamedTuple):
    """The smallest and the largest size of a dimension, and the size that the engine is optimised for."""

    min: int
    opt: int
    max: int

    @classmethod
    def parse(cls, text: str) -> "Range":
        """Read `MIN:OPT:MAX`.

        Raises:
            ValueError: it is something else, or not in order.
        """
        try:
            smallest, optimal, largest = (int(part) for part in text.split(":"))
        except ValueError:
            raise ValueError(f"{text!r} is not MIN:OPT:MAX, such as 1:4:16") from None
        if not 1 <= smallest <= optimal <= largest:
            raise ValueError(f"{text!r} is not in order: 1 <= MIN <= OPT <= MAX")
        return cls(smallest, optimal, largest)

    def __str__(self) -> str:
        return ":".join(map(str, self))


class BatchProfiles(NamedTuple):
    """Ranges of all dynamic dimensions. The defaults cover what the gateway and Triton's configuration send at most.

    A GPU keeps memory for the largest of everything at once: some 15 MB for each of the decoder's rows (a prompt on an
    image), so 8 GB for 16 images of 32 prompts.

    Attributes:
        encoder_batch: images of one run of the encoder.
        decoder_batch: images of one run of the decoder.
        prompts: of one image.
        points: tokens of one prompt: its points, box corners and padding.
    """

    encoder_batch: Range = Range(1, 1, 4)
    decoder_batch: Range = Range(1, 8, 16)
    prompts: Range = Range(1, 1, 32)
    points: Range = Range(1, 2, MAX_TOKENS)

    def shapes(self, graph: str, sizes: "ModelSizes") -> Mapping[str, Shapes]:
        """The shapes of every input of one of `repository.GRAPHS`."""
        return {ENCODER: self._encoder_shapes, DECODER: self._decoder_shapes}[graph](sizes)

    def _encoder_shapes(self, sizes: "ModelSizes") -> Mapping[str, Shapes]:
        side = sizes.image_size
        return {
            "image": Shapes(*((batch, 3, side, side) for batch in self.encoder_batch)),
            "input_size": Shapes(*((batch, 2) for batch in self.encoder_batch)),
        }

    def _decoder_shapes(self, sizes: "ModelSizes") -> Mapping[str, Shapes]:
        _, channels, grid, low_res = sizes
        smallest_to_largest = list(zip(self.decoder_batch, self.prompts, self.points, strict=True))
        return {
            "image_embeddings": Shapes(*((batch, channels, grid, grid) for batch, _, _ in smallest_to_largest)),
            "point_coords": Shapes(*((*dims, 2) for dims in smallest_to_largest)),
            "point_labels": Shapes(*smallest_to_largest),
            "mask_input": Shapes(*((batch, prompts, low_res, low_res) for batch, prompts, _ in smallest_to_largest)),
            "has_mask_input": Shapes(*((batch, prompts) for batch, prompts, _ in smallest_to_largest)),
        }


DEFAULT_PROFILES = BatchProfiles()
