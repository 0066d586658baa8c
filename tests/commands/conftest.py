"""Fixtures of the tests of commands."""

from tests.commands.disk import small_disk

__all__ = ["small_disk"]
