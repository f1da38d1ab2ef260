"""Help texts of the settings, from the fields of `Settings`: for `samserve serve --help`, errors and docs/reference."""

from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from samserve.gateway.settings import Settings

_KINDS = {bool: "true or false", int: "integer", float: "number", str: "text", SecretStr: "text", Path: "path"}
_LIMITS = (("gt", "> {}"), ("ge", ">= {}"), ("le", "<= {}"))


@dataclass(frozen=True, slots=True)
class SettingHelp:
    """How one setting is set.

    Attributes:
        flag: of `samserve serve`.
        variable: the environment variable.
        metavar: stands for the value after the flag.
        values: which values are allowed.
        default: empty if it depends on the machine or stands for nothing; the description then says what holds.
        is_secret: whether messages must not quote the value.
    """

    flag: str
    variable: str
    metavar: str
    values: str
    default: str
    description: str
    is_secret: bool


def setting_help(name: str) -> SettingHelp:
    """The help of the setting with this field name of `Settings`."""
    field = Settings.model_fields[name]
    kind = _without_none(field.annotation)
    choices = get_args(kind)
    return SettingHelp(
        flag=f"--{name.replace('_', '-')}",
        variable=f"{Settings.model_config['env_prefix']}{name}".upper(),
        metavar=f"{{{','.join(choices)}}}" if choices else _KINDS[kind].upper(),
        values=", ".join(choices) if choices else f"{_KINDS[kind]} {_limits(field)}".strip(),
        default=_default(field.default),
        description=field.description or "",
        is_secret=not field.repr,
    )


def _limits(field: FieldInfo) -> str:
    return " and ".join(
        text.format(getattr(constraint, limit))
        for constraint in field.metadata
        for limit, text in _LIMITS
        if hasattr(constraint, limit)
    )


def _without_none(annotation: Any) -> Any:
    """The type of an optional value."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    (kind,) = (each for each in get_args(annotation) if each is not NoneType)
    return kind


def _default(default: Any) -> str:
    # Defaults that depend on the machine have a factory; the description states them.
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if isinstance(default, int | float | str) else ""
