"""Ids of images and cache keys of their embeddings."""

import hashlib
import hmac
import re

from samserve.domain.errors import InvalidImage
from samserve.domain.geometry import CropBox

_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")


class ImageId(str):
    """`sha256:<hex>` of an image file's bytes as sent."""

    __slots__ = ()

    @classmethod
    def of(cls, data: bytes) -> "ImageId":
        """The id of an encoded image file."""
        return cls(f"sha256:{hashlib.sha256(data).hexdigest()}")

    @classmethod
    def parse(cls, text: str) -> "ImageId":
        """Validate an id sent by a caller.

        Raises:
            InvalidImage: the field `image_id` is not `sha256:` and 64 lowercase hexadecimal digits.
        """
        if not _IMAGE_ID.fullmatch(text):
            raise InvalidImage("image_id", "must be 'sha256:' followed by 64 lowercase hexadecimal digits")
        return cls(text)


class EmbeddingKey(str):
    """Key of a cached embedding. It binds the tenant, the image and the model.

    A caller can neither guess another tenant's key nor get an embedding of another model.
    """

    __slots__ = ()

    @classmethod
    def derive(
        cls, secret: bytes, tenant: str, image_id: ImageId, fingerprint: str, crop_box: CropBox | None = None
    ) -> "EmbeddingKey":
        """Derive the key of a tenant's image, or of a crop of it, under a model.

        Args:
            secret: shared by all gateways with a common cache, and unknown to callers.
            fingerprint: `sha256:<hex>` of the model.
            crop_box: the part that was encoded as a separate image; None for the whole image.
        """
        tenant_secret = hmac.digest(secret, tenant.encode(), "sha256")
        # An image id contains no '#', so an id cannot equal a crop's key.
        encoded = image_id if crop_box is None else f"{image_id}#{','.join(map(str, crop_box))}"
        digest = hmac.new(tenant_secret, encoded.encode(), "sha256").hexdigest()
        return cls(f"{fingerprint.removeprefix('sha256:')[:16]}:{digest}")
