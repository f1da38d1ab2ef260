"""Flags and variables of `samserve serve` as the gateway has them."""

import logging

import pytest

from samserve.cli import main
from samserve.gateway import process
from samserve.gateway.settings import Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings of the gateways that were started."""
    started: list[Settings] = []

    async def serve(settings: Settings) -> None:
        started.append(settings)

    monkeypatch.setattr(process, "serve", serve)
    # Which would put the root logger's handlers in place of pytest's.
    monkeypatch.setattr("samserve.observability.logs.configure_logging", lambda *_: None)
    return started


@pytest.mark.parametrize(
    ("flags", "backend"),
    [
        ([], "onnxruntime"),
        (["--backend", "onnxruntime"], "onnxruntime"),
        (["--backend", "triton"], "triton"),
        (["--engine", "embedded"], "onnxruntime"),
        (["--engine", "triton"], "triton"),
    ],
)
def test_the_backend_is_set_by_its_flag_and_by_the_former_one(
    flags: list[str], backend: str, served: list[Settings]
) -> None:
    assert main(["serve", *flags]) == 0
    assert [settings.backend for settings in served] == [backend]


def test_the_former_variable_is_named_with_the_new_one(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SAMSERVE_ENGINE", "embedded")
    assert main(["serve"]) == 0
    assert [settings.backend for settings in served] == ["onnxruntime"]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "SAMSERVE_ENGINE is deprecated; set SAMSERVE_BACKEND=onnxruntime")
    ]


def test_the_former_flag_wins_over_the_variable(served: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMSERVE_BACKEND", "triton")
    assert main(["serve", "--engine", "embedded"]) == 0
    assert [settings.backend for settings in served] == ["onnxruntime"]
