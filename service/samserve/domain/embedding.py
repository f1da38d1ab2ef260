"""Image embeddings and the form in which they are stored outside the process.

A stored embedding starts with a header that says what it is and for whom. Reading checks all of it, so that a
truncated, corrupted, stale or misplaced value is recognised and treated as a miss:

    magic "SAMe" | version u16 | dtype u16 | shape 3 x u32 (C, H, W) | original size 2 x u32 (height, width)
    | SHA-256 of the model fingerprint | SHA-256 of the key | CRC-32 of everything else | values, little-endian, C-order
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.identity import EmbeddingKey
from samserve.domain.manifest import ModelManifest

FORMAT_VERSION = 1
_MAGIC = b"SAMe"
_DTYPE_FLOAT16 = 1
_HEADER = struct.Struct("<4sHH3I2I32s32s")
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CHECKSUM.size


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The image encoder's output for an image.

    Attributes:
        values: float16 `[C, H, W]`.
        frame: how the image lies in the model's input; prompts and masks need it.
    """

    values: npt.NDArray[np.float16]
    frame: ImageFrame

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return self.values.nbytes


class RejectedEmbedding(ValueError):
    """A stored value is not the requested embedding.

    Attributes:
        reason: which part of the header failed, one of `REJECTION_REASONS`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"stored embedding rejected: {reason}")
        self.reason = reason


REJECTION_REASONS = ("length", "magic", "version", "dtype", "shape", "original_size", "fingerprint", "key", "checksum")


def pack(embedding: Embedding, key: EmbeddingKey, manifest: ModelManifest) -> bytes:
    """Serialise an embedding to its stored form."""
    header = _HEADER.pack(
        _MAGIC,
        FORMAT_VERSION,
        _DTYPE_FLOAT16,
        *embedding.values.shape,
        *embedding.frame.original_size,
        _digest(manifest.fingerprint),
        _digest(key),
    )
    values = np.ascontiguousarray(embedding.values, dtype="<f2").tobytes()
    return b"".join((header, _CHECKSUM.pack(zlib.crc32(values, zlib.crc32(header))), values))


def unpack(data: bytes, key: EmbeddingKey, manifest: ModelManifest) -> Embedding:
    """Parse the stored form.

    Raises:
        RejectedEmbedding: the value is not a complete embedding of this key under this model.
    """
    if len(data) != HEADER_BYTES + manifest.embedding_bytes:
        raise RejectedEmbedding("length")
    header, values = data[: _HEADER.size], memoryview(data)[HEADER_BYTES:]
    magic, version, dtype, channels, rows, columns, height, width, fingerprint, key_digest = _HEADER.unpack(header)
    checks = {
        "magic": magic == _MAGIC,
        "version": version == FORMAT_VERSION,
        "dtype": dtype == _DTYPE_FLOAT16,
        "shape": (channels, rows, columns) == manifest.embedding_shape,
        "original_size": height > 0 and width > 0,
        "fingerprint": fingerprint == _digest(manifest.fingerprint),
        "key": key_digest == _digest(key),
        "checksum": _CHECKSUM.unpack_from(data, _HEADER.size)[0] == zlib.crc32(values, zlib.crc32(header)),
    }
    for reason, passed in checks.items():
        if not passed:
            raise RejectedEmbedding(reason)
    array = np.frombuffer(values, dtype="<f2").reshape(manifest.embedding_shape)
    return Embedding(array, ImageFrame(Size(height, width), manifest.image_size))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
