"""Reading photos as pixels."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from samserve.adapters.images.pixels import UnservedPixels, upright_rgb

Picture = npt.NDArray[np.uint8]
"""RGB, uint8 `[H, W, 3]`."""


def read_photo(data: bytes) -> Picture:
    """Read the pixels of an image file, after EXIF orientation.

    Raises:
        OSError: it is not an image, or is corrupt.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(upright_rgb(image))
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise OSError("the photo is not an image in a supported format") from None
    except UnservedPixels as error:
        raise OSError(f"the photo {error}") from None
    except Exception as error:  # Pillow's plugins raise many kinds of exceptions on corrupt data.
        raise OSError(f"the photo is truncated or corrupt: {error}") from error
