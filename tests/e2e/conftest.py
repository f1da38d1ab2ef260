"""A gateway in a process of its own, on the repository's models."""

from collections.abc import Iterator

import pytest

from tests.support.gateway_process import gateway_process


@pytest.fixture(scope="session")
def gateway_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a gateway that serves."""
    with gateway_process(tmp_path_factory.mktemp("gateway") / "log") as address:
        yield address
