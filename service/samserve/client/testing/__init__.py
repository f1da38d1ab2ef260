"""A gateway without a model, for the tests of code that uses the client.

>>> @pytest.fixture
... def gateway() -> Iterator[FakeGateway]:
...     with FakeGateway() as gateway:
...         yield gateway
...
>>> def test_my_code(gateway: FakeGateway) -> None:
...     with Client(gateway.address) as client:
...         assert client.segment("photo.jpg", box=[10, 10, 60, 40]).areas[0] == 50 * 30
"""

from samserve.client.testing.fake_gateway import FakeGateway, ReceivedCall
from samserve.client.testing.masks import MaskFunction, box_masks

__all__ = ["FakeGateway", "MaskFunction", "ReceivedCall", "box_masks"]
