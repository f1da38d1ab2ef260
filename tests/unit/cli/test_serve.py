"""Flags and variables of `samserve serve` as the gateway has them."""

import logging
from pathlib import Path
from typing import Any

import pytest

from samserve.cli import main
from samserve.gateway import process
from samserve.gateway.setting_help import setting_help
from samserve.gateway.settings import Settings

EXAMPLES = {"integer": "3", "number": "0.5", "text": "other", "path": "/other"}
"""A valid value by kind that is no setting's default."""
ADDRESSES = {"triton": "other:1", "triton_encoder": "other:1", "redis_url": "redis://other"}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings of the gateways that were started."""
    started: list[Settings] = []

    async def serve(settings: Settings) -> None:
        started.append(settings)

    monkeypatch.setattr(process, "serve", serve)
    monkeypatch.setattr("samserve.gateway.supervisor.supervise", serve)
    # Which would put the root logger's handlers in place of pytest's.
    monkeypatch.setattr("samserve.observability.logs.configure_logging", lambda *_: None)
    return started


def example(name: str) -> str | None:
    """Another value of a setting than its default, as a flag takes it; None for a flag without a value."""
    setting = setting_help(name)
    if name in ADDRESSES:
        return ADDRESSES[name]
    if setting.values == "true or false":
        return None
    if setting.metavar.startswith("{"):
        return setting.values.split(", ")[-1]
    return EXAMPLES[setting.values.partition(" ")[0]]


def text(value: Any) -> str:
    """A setting's value as a variable has it."""
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_a_flag_and_a_variable_and_the_flag_wins(
    name: str, served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, value = setting_help(name), example(name)
    flag, negated = (["--" + name.replace("_", "-")], ["--no-" + name.replace("_", "-")])
    assert main(["serve", *flag, *([] if value is None else [value])]) == 0
    monkeypatch.setenv("SAMSERVE_" + name.upper(), value or "true")
    assert main(["serve"]) == 0
    by_flag, by_variable = served
    assert text(getattr(by_flag, name)) == text(getattr(by_variable, name)) == (value or "True")
    assert (setting.flag, setting.variable) == (flag[0], "SAMSERVE_" + name.upper())
    assert getattr(by_flag, name) != Settings.model_fields[name].default

    if value is None:
        assert main(["serve", *negated]) == 0
        assert getattr(served[-1], name) is False


def test_help_describes_every_setting_by_its_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"{setting_help(name).flag} " in told.replace(",", " ")
        # argparse breaks lines at hyphens too.
        assert field.description.replace(" ", "") in told.replace(" ", "")


def test_defaults_that_help_names_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv("SAMSERVE_" + name.upper(), raising=False)
    settings = Settings()
    for name in Settings.model_fields:
        if default := setting_help(name).default:
            assert str(getattr(settings, name)).lower() == default.lower()


def test_flags_that_are_not_given_leave_the_defaults(served: list[Settings]) -> None:
    assert main(["serve"]) == 0
    assert served == [Settings()]


def test_a_variable_with_an_invalid_value_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAMSERVE_MAX_PROMPTS", "many")
    assert main(["serve"]) == 2
    assert "--max-prompts (SAMSERVE_MAX_PROMPTS) is 'many': Input should be a valid integer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "backend"),
    [
        ([], "onnxruntime"),
        (["--backend", "onnxruntime"], "onnxruntime"),
        (["--backend", "triton"], "triton"),
        (["--engine", "embedded"], "onnxruntime"),
        (["--engine", "triton"], "triton"),
        (["--engine", "triton", "--backend", "onnxruntime"], "onnxruntime"),
    ],
)
def test_the_backend_is_set_by_its_flag_and_by_the_former_one(
    flags: list[str], backend: str, served: list[Settings]
) -> None:
    assert main(["serve", *flags]) == 0
    assert [settings.backend for settings in served] == [backend]


@pytest.mark.parametrize("source", ["variable", "flag"])
@pytest.mark.parametrize(
    ("name", "value", "warning"),
    [
        (
            "engine",
            "embedded",
            "--engine (SAMSERVE_ENGINE) is deprecated; use --backend onnxruntime (SAMSERVE_BACKEND=onnxruntime)",
        ),
        (
            "engine-threads",
            "3",
            "--engine-threads (SAMSERVE_ENGINE_THREADS) is deprecated; "
            "use --onnxruntime-threads 3 (SAMSERVE_ONNXRUNTIME_THREADS=3)",
        ),
    ],
)
def test_a_deprecated_setting_is_named_with_the_one_that_replaces_it(
    name: str,
    value: str,
    warning: str,
    source: str,
    served: list[Settings],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if source == "variable":
        monkeypatch.setenv(f"SAMSERVE_{name.replace('-', '_').upper()}", value)
    assert main(["serve", *([f"--{name}", value] if source == "flag" else [])]) == 0
    assert len(served) == 1
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.WARNING, warning)]


def test_the_former_flag_wins_over_the_variable(served: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMSERVE_BACKEND", "triton")
    assert main(["serve", "--engine", "embedded"]) == 0
    assert [settings.backend for settings in served] == ["onnxruntime"]


def test_a_folder_is_a_path(served: list[Settings]) -> None:
    assert main(["serve", "--model-repository", "models"]) == 0
    assert served[0].model_repository == Path("models")
