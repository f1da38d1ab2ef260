"""Odd metadata leave one log line a call, in the form of the gateway."""

import json
import socket
from pathlib import Path

import grpc

from tests.support.gateway_process import gateway_process
from tests.support.http2_frames import Responses, call_headers, last_message, preface

INFO = "/samserve.v1.SegmentationService/GetServerInfo"
ODD = {
    "not UTF-8": (b"samserve-tenant", b"\xe9t\xe9"),
    "not UTF-8, of no meaning": (b"x-odd", b"\xff\xfe"),
    "baggage of no form": (b"baggage", b"=;,=%zz"),
    "baggage that is not ASCII": (b"baggage", b"a=\xff"),
    "trace context of no form": (b"traceparent", b"\xff"),
}
BROKEN = (b"grpc-timeout", b"abc")
"""gRPC itself refuses it, before there is a call."""


def call(address: str, metadata: tuple[bytes, bytes]) -> bool:
    """Ask with this metadata; returns whether gRPC and the gateway had nothing against it."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(preface() + call_headers(INFO, 1, metadata) + last_message(1, b""))
        responses = Responses()
        while (status := responses.status(1)) is None:
            some = connection.recv(1 << 16)
            assert some, "the connection was closed"
            responses.feed(some)
        return grpc.StatusCode.OK.value[0] == status


def test_odd_metadata_leave_one_line_a_call(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # A gateway with traces reads the most; they go nowhere.
    with gateway_process(log, SAMSERVE_TRACING="true", OTEL_TRACES_SAMPLER="always_off") as address:
        for metadata in ODD.values():
            assert call(address, metadata)
        assert not call(address, BROKEN)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["message"] for line in lines if not line["logger"].startswith("samserve.")] == []
    calls = [line for line in lines if line["logger"] == "samserve.calls"]
    assert [(line["rpc"], line["code"]) for line in calls] == [("GetServerInfo", "OK")] * len(ODD)
    assert calls[0]["tenant"] == "été"


def test_an_operator_can_have_the_lines_of_grpc_itself(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with gateway_process(log, GRPC_VERBOSITY="ERROR") as address:
        call(address, BROKEN)
    assert "grpc-timeout" in log.read_text()
