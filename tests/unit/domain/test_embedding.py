"""The stored form of embeddings: a packed value is restored, and any other value is rejected."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samserve.domain.embedding import HEADER_BYTES, REJECTION_REASONS, Embedding, RejectedEmbedding, pack, unpack
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.identity import EmbeddingKey
from samserve.domain.manifest import ModelManifest

MANIFEST = ModelManifest(
    model="tiny",
    fingerprint="sha256:" + "5a" * 32,
    precision="fp16",
    image_size=64,
    embedding_shape=(4, 3, 2),
    low_res_size=16,
)
KEY = EmbeddingKey("5a5a5a5a5a5a5a5a:" + "01" * 32)

sides = st.integers(1, 2**32 - 1)
# Any bits: infinities, NaN and subnormals included.
embeddings = st.builds(
    lambda data, height, width: Embedding(
        np.frombuffer(data, np.float16).reshape(MANIFEST.embedding_shape),
        ImageFrame(Size(height, width), MANIFEST.image_size),
    ),
    st.binary(min_size=MANIFEST.embedding_bytes, max_size=MANIFEST.embedding_bytes),
    sides,
    sides,
)
an_embedding = Embedding(
    np.arange(24, dtype=np.float16).reshape(MANIFEST.embedding_shape), ImageFrame(Size(48, 30), MANIFEST.image_size)
)


def rejection(data: bytes, key: EmbeddingKey = KEY, manifest: ModelManifest = MANIFEST) -> str:
    with pytest.raises(RejectedEmbedding) as raised:
        unpack(data, key, manifest)
    return raised.value.reason


@given(embeddings)
def test_round_trip(embedding: Embedding) -> None:
    back = unpack(pack(embedding, KEY, MANIFEST), KEY, MANIFEST)
    assert back.values.tobytes() == embedding.values.tobytes()
    assert back.values.shape == embedding.values.shape
    assert back.values.dtype == np.float16
    assert back.frame == embedding.frame


def test_memory_order_of_the_values_does_not_matter() -> None:
    transposed = Embedding(np.asfortranarray(an_embedding.values), an_embedding.frame)
    assert pack(transposed, KEY, MANIFEST) == pack(an_embedding, KEY, MANIFEST)


def test_embeddings_read_back_are_read_only() -> None:
    back = unpack(pack(an_embedding, KEY, MANIFEST), KEY, MANIFEST)
    with pytest.raises(ValueError, match="read-only"):
        back.values[0] = 1


@given(embeddings, st.integers(0, HEADER_BYTES + MANIFEST.embedding_bytes - 1), st.integers(1, 255))
def test_one_changed_byte_is_rejected(embedding: Embedding, position: int, flips: int) -> None:
    data = bytearray(pack(embedding, KEY, MANIFEST))
    data[position] ^= flips
    assert rejection(bytes(data)) in REJECTION_REASONS


def test_every_byte_is_covered() -> None:
    packed = pack(an_embedding, KEY, MANIFEST)
    for position in range(len(packed)):
        data = bytearray(packed)
        data[position] ^= 0x80
        rejection(bytes(data))


@given(embeddings, st.data())
def test_truncated_or_extended_is_rejected(embedding: Embedding, data: st.DataObject) -> None:
    packed = pack(embedding, KEY, MANIFEST)
    kept = data.draw(st.integers(0, len(packed) - 1))
    assert rejection(packed[:kept]) == "length"
    assert rejection(packed + data.draw(st.binary(min_size=1, max_size=8))) == "length"


@given(st.binary(max_size=2 * (HEADER_BYTES + MANIFEST.embedding_bytes)))
def test_noise_is_rejected(data: bytes) -> None:
    assert rejection(data) in REJECTION_REASONS


def test_another_key_is_rejected() -> None:
    assert rejection(pack(an_embedding, EmbeddingKey(KEY[:-1] + "2"), MANIFEST)) == "key"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("fingerprint", lambda manifest: replace(manifest, fingerprint="sha256:" + "5b" * 32)),
        ("shape", lambda manifest: replace(manifest, embedding_shape=(2, 3, 4))),
        ("length", lambda manifest: replace(manifest, embedding_shape=(4, 3, 3))),
    ],
)
def test_another_model_is_rejected(reason: str, change: Callable[[ModelManifest], ModelManifest]) -> None:
    assert rejection(pack(an_embedding, KEY, MANIFEST), manifest=change(MANIFEST)) == reason
