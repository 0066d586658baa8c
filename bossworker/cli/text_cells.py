"""How much room a text takes in a table on a terminal: two cells for a letter as wide as those of Chinese and for most
emoji, none for an accent that stands on the letter before it.
"""

from __future__ import annotations

from unicodedata import combining, east_asian_width


def width_of(text: str) -> int:
    """How many it takes."""
    return len(text) if text.isascii() else sum(map(_cells_of_letter, text))


def padded(text: str, width: int) -> str:
    """With spaces behind it, as `str.ljust`."""
    return text + " " * (width - width_of(text))


def cut(text: str, width: int) -> str:
    """As much of its beginning as fits into so many cells."""
    if text.isascii():
        return text[:width]
    taken = 0
    for at, letter in enumerate(text):
        taken += _cells_of_letter(letter)
        if taken > width:
            return text[:at]
    return text


def shown(text: str, width: int) -> str:
    """All of it, or its beginning and a sign that there is more, in so many cells."""
    return text if width_of(text) <= width else f"{cut(text, width - 1)}…"


def _cells_of_letter(letter: str) -> int:
    return 0 if combining(letter) else 1 + (east_asian_width(letter) in "WF")
