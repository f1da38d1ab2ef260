import hashlib

import pytest

from samserve.domain.errors import InvalidImage
from samserve.domain.identity import EmbeddingKey, ImageId

DOG, CAT = ImageId.of(b"dog"), ImageId.of(b"cat")
MODEL = "sha256:" + "a" * 64


def test_image_id_is_the_sha256_of_the_bytes() -> None:
    assert ImageId.of(b"dog") == "sha256:" + hashlib.sha256(b"dog").hexdigest()
    assert ImageId.parse(DOG) == DOG


@pytest.mark.parametrize(
    "text", ["", "dog", "sha256:", DOG.upper(), DOG + "0", DOG[:-1], "md5:" + "0" * 64, DOG + "\n"]
)
def test_malformed_ids_are_refused(text: str) -> None:
    with pytest.raises(InvalidImage) as refusal:
        ImageId.parse(text)
    assert refusal.value.field == "image_id"


def test_key_binds_secret_tenant_image_and_model() -> None:
    keys = {
        EmbeddingKey.derive(secret, tenant, image, model)
        for secret in (b"", b"s")
        for tenant in ("", "a", "b")
        for image in (DOG, CAT)
        for model in (MODEL, "sha256:" + "b" * 64)
    }
    assert len(keys) == 2 * 3 * 2 * 2


def test_the_key_does_not_reveal_the_image() -> None:
    assert DOG.removeprefix("sha256:") not in EmbeddingKey.derive(b"s", "", DOG, MODEL)
