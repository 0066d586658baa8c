"""What all commands of the command line expect of argparse."""

from __future__ import annotations

import argparse
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from _typeshed import SupportsWrite


class ArgumentParser(argparse.ArgumentParser):
    """Has ``--`` as the value of an option (``--name=--``) on each Python; and help that is lost is an error."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """To stdout, or to this file. Raises OSError where nobody takes it: argparse would say that all went well."""
        print(self.format_help(), end="", file=file or sys.stdout)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Before Python 3.13, argparse takes ``--`` away there, too, and the value is an empty list."""
        if arg_strings == ["--"] and action.option_strings and action.nargs is None:
            value = self._get_value(action, "--")
            self._check_value(action, value)
            return value
        return super()._get_values(action, arg_strings)
