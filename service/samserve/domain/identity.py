"""The names of images and the keys of their embeddings."""

import hashlib
import hmac
import re

from samserve.domain.errors import InvalidImage
from samserve.domain.geometry import CropBox

_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")


class ImageId(str):
    """`sha256:<hex>` of an image file's bytes as they were sent."""

    __slots__ = ()

    @classmethod
    def of(cls, data: bytes) -> "ImageId":
        """The id of an encoded image file."""
        return cls(f"sha256:{hashlib.sha256(data).hexdigest()}")

    @classmethod
    def parse(cls, text: str) -> "ImageId":
        """Check an id that a caller sent.

        Raises:
            InvalidImage: of the field `image_id`: it is not `sha256:` and 64 lowercase hexadecimal digits.
        """
        if not _IMAGE_ID.fullmatch(text):
            raise InvalidImage("image_id", "must be 'sha256:' followed by 64 lowercase hexadecimal digits")
        return cls(text)


class EmbeddingKey(str):
    """Name of a cached embedding: binds the tenant, the image and the model.

    A caller can neither guess another tenant's key nor be served an embedding of another model.
    """

    __slots__ = ()

    @classmethod
    def derive(
        cls, secret: bytes, tenant: str, image_id: ImageId, fingerprint: str, crop_box: CropBox | None = None
    ) -> "EmbeddingKey":
        """The key of one tenant's image, or of a crop of it, under one model.

        Args:
            secret: shared by all gateways that share a cache, known to no caller.
            fingerprint: of the model, `sha256:<hex>`.
            crop_box: the part that was encoded as an image of its own; None for the whole.
        """
        tenant_secret = hmac.digest(secret, tenant.encode(), "sha256")
        # An image id holds no '#', so that no id can be taken for a crop.
        encoded = image_id if crop_box is None else f"{image_id}#{','.join(map(str, crop_box))}"
        digest = hmac.new(tenant_secret, encoded.encode(), "sha256").hexdigest()
        return cls(f"{fingerprint.removeprefix('sha256:')[:16]}:{digest}")
