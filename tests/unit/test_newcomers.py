"""What has been made since one last looked."""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Iterator

import pytest

from bossworker.pool.wire.memory_file import mapped, unnamed_file
from bossworker.system import newcomers
from bossworker.system.newcomers import Newcomers

pytestmark = pytest.mark.skipif(not newcomers._HAS_GENERATIONS, reason="then there may always be some")


@pytest.fixture(autouse=True)
def no_collections() -> Iterator[None]:
    """But those of the tests."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def classes() -> Newcomers:
    classes = Newcomers(type)
    look(classes)
    return classes


def look(classes: Newcomers) -> bool:
    found = classes.look()
    if found is not None:
        classes.all_known(found)
    return found is not None


def make() -> type:
    return type("Made", (), {})


def test_a_class_is_new_once(classes: Newcomers) -> None:
    look(classes)  # pytest may have made some
    assert not look(classes)
    made = [make()]
    assert look(classes)
    assert not look(classes)
    made.append(make())
    assert look(classes)
    assert not look(classes)
    del made


def test_a_file_that_is_mapped_makes_none(classes: Newcomers) -> None:
    """Or a pool that starts would look at all classes, in a program that had started one before."""
    for pages in (1, 2, 3):
        fd = unnamed_file(pages * mmap.PAGESIZE)
        assert len(mapped(fd, pages * mmap.PAGESIZE)) == pages * mmap.PAGESIZE
        os.close(fd)
        assert not look(classes) or pages == 1  # when libc may be loaded


def test_one_in_the_place_of_another_is_new(classes: Newcomers) -> None:
    """As it may be after a collection of the youngest, which makes place."""
    old = make()
    assert look(classes)
    for _ in range(50):
        place = id(old)
        del old
        gc.collect(0)
        old = make()
        assert look(classes)
        if id(old) == place:
            break


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_one_that_has_grown_old_meanwhile_is_still_new(classes: Newcomers, generation: int) -> None:
    made = make()
    gc.collect(generation)
    assert look(classes)
    assert not look(classes)
    del made


@pytest.mark.parametrize("thawed", [False, True])
def test_so_is_one_that_was_frozen(classes: Newcomers, thawed: bool) -> None:
    made = make()
    gc.freeze()
    try:
        if thawed:
            gc.unfreeze()
        assert look(classes)
        assert not look(classes)
    finally:
        gc.unfreeze()
    del made


def test_frozen_objects_are_not_counted(classes: Newcomers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million, that takes longer than the start of a pool."""
    monkeypatch.delattr(gc, "get_freeze_count")
    look(classes)
    assert not look(classes)


def test_other_objects_do_not_matter(classes: Newcomers) -> None:
    look(classes)
    others = [[number] for number in range(1000)]
    assert not look(classes)
    del others


def test_where_very_many_are_young_there_may_be_some(classes: Newcomers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newcomers, "MOST_YOUNG", 10)
    others = [[number] for number in range(100)]
    assert look(classes)
    assert look(classes)
    del others


def test_until_all_were_looked_at_they_stay_new(classes: Newcomers) -> None:
    made = make()
    assert classes.look() is not None
    assert classes.look() is not None
    del made
