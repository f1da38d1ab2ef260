"""The argument parser of the command."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias


class Parser(argparse.ArgumentParser):
    """Reports invalid arguments in one line, and adds flags whose definition is slow to import only when they are
    parsed.

    Attributes:
        add_flags: called before this parser's arguments are parsed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.add_flags: Callable[[], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the deferred flags, then parse."""
        add_flags, self.add_flags = self.add_flags, None
        if add_flags is not None:
            add_flags()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and one line on standard error."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
