"""Strategies of Hypothesis for masks, logits and images."""

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.masks import Mask

IMAGE_SIZE, LOW_RES_SIZE = 64, 16
Logits = npt.NDArray[np.float32]

_WINDOWS = st_numpy.arrays(np.bool_, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=14))


@st.composite
def frames(draw: st.DrawFn) -> ImageFrame:
    return ImageFrame(Size(draw(st.integers(1, 150)), draw(st.integers(1, 150))), IMAGE_SIZE)


@st.composite
def logits(draw: st.DrawFn) -> Logits:
    """From smooth blobs to noise, and everything between nothing and everything."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = rng.normal(size=(LOW_RES_SIZE, LOW_RES_SIZE))
    ys, xs = np.mgrid[:LOW_RES_SIZE, :LOW_RES_SIZE]
    blob = draw(st.floats(0, 20)) - np.hypot(ys - rng.uniform(0, 16), xs - rng.uniform(0, 16))
    return np.asarray(draw(st.floats(0, 3)) * noise + blob + draw(st.floats(-5, 5)), dtype=np.float32)


@st.composite
def masks_in_images(draw: st.DrawFn) -> Mask:
    window = draw(_WINDOWS.filter(np.any))
    top, left, below, beside = (draw(st.integers(0, 6)) for _ in range(4))
    size = Size(top + window.shape[0] + below, left + window.shape[1] + beside)
    return Mask(size, np.asfortranarray(window), top, left, 0.9, 0.95, np.zeros((1, 1), dtype=np.float32))
