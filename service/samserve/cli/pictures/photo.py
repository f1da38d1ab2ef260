"""Photos as pixels."""

import numpy as np
import numpy.typing as npt

from samserve.adapters.images.files import UnservedImage, open_image
from samserve.adapters.images.pixels import upright_rgb

Picture = npt.NDArray[np.uint8]
"""RGB, uint8 `[H, W, 3]`."""


def read_photo(data: bytes) -> Picture:
    """The pixels of an image file as a person sees them.

    Raises:
        OSError: it is not an image, or broken.
    """
    try:
        return np.asarray(upright_rgb(open_image(data))[0])
    except MemoryError:
        raise
    except UnservedImage as error:
        raise OSError(f"the photo cannot be read: {error}") from None
    except Exception as error:  # Pillow's plugins let nearly anything out on corrupt data
        raise OSError(f"the photo is truncated or corrupt: {error}") from error
