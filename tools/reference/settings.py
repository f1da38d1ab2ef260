"""The page on the gateway's settings, from the fields of `Settings`."""

from samserve.gateway.setting_help import SettingHelp, setting_help
from samserve.gateway.settings import Settings

_HEAD = """\
<!-- Generated from service/samserve/gateway/settings.py by `make reference`; do not edit. -->

# Settings of a gateway

`samserve serve` takes every setting as a flag or as an environment variable. The flag takes precedence. Flags of
settings that are true or false have no value: `--tracing`, `--no-tracing`.

| flag | environment variable | values | default | |
|---|---|---|---|---|
"""


def pages() -> dict[str, str]:
    """Render the page, keyed by file name."""
    rows = (_row(setting_help(name)) for name in Settings.model_fields)
    return {"settings.md": _HEAD + "\n".join(rows) + "\n"}


def _row(setting: SettingHelp) -> str:
    default = f"`{setting.default}`" if setting.default else ""
    return f"| `{setting.flag}` | `{setting.variable}` | {setting.values} | {default} | {setting.description} |"
