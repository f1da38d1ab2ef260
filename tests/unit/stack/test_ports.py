"""Ports of the stack's components."""

import socket
from dataclasses import replace

import pytest

from stack.ports import Ports, PortTaken


def test_a_port_that_somebody_listens_on_is_refused_by_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} is taken; .* --prometheus"):
            replace(Ports.free(), prometheus=port).check_free()
