"""The settings of a queue: checked when they are set, and heeded at once."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, Generic, Self, TypedDict, TypeVar, overload

from bossworker.display import shorten
from bossworker.forkqueue import limits
from bossworker.system.checks import check_count, check_seconds

T = TypeVar("T")

_BYTES_LIMIT = (1 << 63) - 1


def check_positive(name: str, value: object) -> int:
    """A whole number from 1."""
    return check_count(name, value, 1)


def check_flag(name: str, value: object) -> bool:
    """True or False; 1 and 0 will do."""
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise TypeError(f"{name} must be True or False, not {shorten(value)}")


def check_delay(name: str, value: object) -> float:
    """A number of seconds; None is 0."""
    return check_seconds(name, 0 if value is None else value)


def check_load(name: str, value: object) -> float:
    """A load average, 0 or None for no limit; ValueError where the platform has none."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a load average, a number, not {shorten(value)}")
    value = float(value)
    if not 0 <= value < float("inf"):  # nor NaN
        raise ValueError(f"{name} must be 0 (no limit) or a load average above it, not {shorten(value)}")
    if value:
        _check_told(name, value, limits.load_average)
    return value


def check_bytes(name: str, value: object) -> int:
    """A number of bytes, 0 or None for no limit; ValueError where the platform does not tell how much is free."""
    value = check_count(name, 0 if value is None else value, most=_BYTES_LIMIT)
    if value:
        _check_told(name, value, limits.available_memory)
    return value


def _check_told(name: str, value: object, probe: Callable[[], object]) -> None:
    try:
        probe()
    except OSError as error:
        raise ValueError(
            f"{name} must be 0 here, not {shorten(value)}: the platform does not tell ({error})"
        ) from error


class Setting(Generic[T]):
    """A property of a queue that is checked when it is set, and whose change wakes whoever waits for room."""

    def __init__(self, check: Callable[[str, object], T], doc: str) -> None:
        self._check = check
        self.__doc__ = doc

    def __set_name__(self, owner: type[Settings], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, settings: None, owner: type[Settings]) -> Self: ...
    @overload
    def __get__(self, settings: Settings, owner: type[Settings]) -> T: ...
    def __get__(self, settings: Settings | None, owner: type[Settings]) -> Self | T:
        return self if settings is None else settings._values[self._name]

    def __set__(self, settings: Settings, value: T) -> None:
        settings._values[self._name] = self._check(self._name, value)
        settings._on_change()


class SettingValues(TypedDict, total=False):
    """The settings by name, as ``install`` takes them."""

    size: int
    delay: float | None
    weight: int
    allow_excess: bool
    ignore_children: bool
    debug: bool
    trace: bool
    max_load: float | None
    min_free_memory: int | None


class Settings:
    """What limits a queue. TypeError or ValueError names the setting, its value and what is allowed."""

    size = Setting(check_positive, "How much weight may run at once: with weights of 1, how many children.")
    delay = Setting(check_delay, "Seconds (monotonic) from one start to the next, at least; 0: none.")
    weight = Setting(check_positive, "What a child counts that is started without a weight of its own.")
    allow_excess = Setting(
        check_flag,
        "True: the next child starts as soon as less than `size` runs, whatever its own weight. False: it waits until "
        "that fits as well. (One heavier than `size` then runs alone.)",
    )
    ignore_children = Setting(
        check_flag,
        "Whether statuses are dropped, as if the children did not exist for ``wait`` and its kin once they have ended "
        "(which is what SIGCHLD set to SIG_IGN does): for programs that never ask.",
    )
    debug = Setting(check_flag, "Log each child that starts, ends and is reaped.")
    trace = Setting(check_flag, "Log each call of fork, exit, wait, waitpid and their kin.")
    max_load = Setting(
        check_load,
        "Start no child beside others unless the load average of the last minute is below this; 0: no limit.",
    )
    min_free_memory = Setting(
        check_bytes, "Start no child beside others unless this many bytes of memory are available; 0: no limit."
    )

    def __init__(self, values: dict[str, Any]) -> None:
        self._values: dict[str, Any] = {}
        self._configure(values)

    def _configure(self, values: dict[str, Any]) -> None:
        """Set several; all are checked before one is set."""
        checked = {name: _setting(name)._check(name, value) for name, value in values.items()}
        self._values.update(checked)
        self._on_change()

    def _as_dict(self) -> dict[str, Any]:
        """All of them, by name."""
        return dict(self._values)

    def _on_change(self) -> None:
        """A setting has changed."""


def _setting(name: str) -> Setting[Any]:
    setting = vars(Settings).get(name)
    if not isinstance(setting, Setting):
        allowed = ", ".join(name for name, value in vars(Settings).items() if isinstance(value, Setting))
        raise TypeError(f"there is no setting {name!r}; the settings are {allowed}")
    return setting
