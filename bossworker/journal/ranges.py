"""Sets of job ids as ranges: a million jobs that came in a row are one of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """A set of whole numbers, kept as disjoint ranges in ascending order that do not touch each other."""

    def __init__(self, ranges: Iterable[range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for one in ranges:
            self.add(one.start, one.stop)

    def __iter__(self) -> Iterator[range]:
        return map(range, self._starts, self._stops)

    def __len__(self) -> int:
        """How many numbers there are."""
        return sum(self._stops) - sum(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._stops[at]

    def add(self, start: int, stop: int) -> None:
        """Take these in, whether or not some are here already."""
        if start >= stop:
            return
        if self._stops and self._stops[-1] == start:  # most often they follow on
            self._stops[-1] = stop
            return
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def remove(self, start: int, stop: int) -> None:
        """Take these out, as far as they are here."""
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        if first >= last or start >= stop:
            return
        left = [(self._starts[first], start), (stop, self._stops[last - 1])]
        kept = [(one, other) for one, other in left if one < other]
        self._starts[first:last] = [one for one, _ in kept]
        self._stops[first:last] = [other for _, other in kept]

    def within(self, start: int, stop: int) -> list[range]:
        """Those that are here, of these."""
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        pairs = zip(self._starts[first:last], self._stops[first:last])
        return [range(max(start, one), min(stop, other)) for one, other in pairs]

    def missing(self, start: int, stop: int) -> list[range]:
        """Those that are not here, of these."""
        edges = [start]
        for one in self.within(start, stop):
            edges += one.start, one.stop
        edges.append(stop)
        return [range(a, b) for a, b in zip(edges[::2], edges[1::2]) if a < b]

    def copy(self) -> Ranges:
        twin = Ranges()
        twin._starts, twin._stops = list(self._starts), list(self._stops)
        return twin
