"""Classes on their way to a worker and back stay the same, and are left as the program has them."""

from __future__ import annotations

import collections
import dataclasses
import enum
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, pickling

Pool = Callable[..., BossWorker]


def local_classes() -> dict[str, Any]:
    """One of each kind, with a member or an instance."""

    class Color(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point:
        x: int
        made = 0

    class Oops(Exception):
        pass

    pair = collections.namedtuple("pair", "a b")  # not to be found by its name
    return {"enum": Color.RED, "dataclass": Point(1), "exception": Oops("oops"), "namedtuple": pair(1, 2)}


@pytest.mark.parametrize("kind", local_classes())
def test_a_class_that_was_there_when_the_pool_was_made_is_the_same_in_its_workers(pool: Pool, kind: str) -> None:
    value = local_classes()[kind]

    def handle(job: dict[str, Any]) -> dict[str, Any]:
        return {"same": type(job["it"]) is type(value), "back": value, "equal": job["it"] == value}

    bw = pool(handle, worker_count=1)
    bw.add_work({"it": value})
    result = bw.get_result()
    assert result["same"]
    assert result["equal"] or kind == "exception"
    assert type(result["back"]) is type(value)
    if kind == "enum":
        assert result["back"] is value


def test_so_it_is_when_no_handler_refers_to_it(pool: Pool) -> None:
    value = local_classes()["enum"]
    bw = pool(lambda job: {"class": type(job["it"]), "it": job["it"]}, worker_count=1)
    bw.add_work({"it": value})
    result = bw.get_result()
    assert result["it"] is value
    assert result["class"] is type(value)


def test_an_exception_of_a_local_class_can_be_caught_here(pool: Pool) -> None:
    oops = local_classes()["exception"]

    def raise_it(job: dict[str, Any]) -> None:
        raise oops

    bw = pool(raise_it, worker_count=1)
    bw.add_work({})
    assert type(bw.get_result().exception) is type(oops)


def test_a_class_is_the_same_in_a_worker_that_replaces_another(pool: Pool) -> None:
    value = local_classes()["enum"]
    bw = pool(lambda job: {"same": job["it"] is value}, worker_count=1, max_jobs_per_worker=1)
    bw.add_work(*[{"it": value}] * 3)
    assert [result["same"] for result in bw.results()] == [True] * 3


def test_loading_a_class_again_does_not_undo_what_has_been_set_in_it(pool: Pool) -> None:
    """Neither here nor in the worker."""
    point = local_classes()["dataclass"]

    def handle(job: dict[str, Any]) -> dict[str, Any]:
        made = type(job["it"])
        made.made += 1
        return {"made": made.made, "it": job["it"]}

    bw = pool(handle, worker_count=1)
    for count in (1, 2, 3):
        type(point).made = 100 * count
        bw.add_work({"it": point})
        result = bw.get_result()
        assert type(result["it"]) is type(point)
        assert result["made"] == count
        assert type(point).made == 100 * count


# -- __main__ --------------------------------------------------------------------------------------------------------


def script(tmp_path: Path, text: str) -> list[str]:
    """The lines that a program prints."""
    path = tmp_path / "program.py"
    path.write_text("from bossworker import BossWorker\n" + textwrap.dedent(text))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return str(done.stdout).splitlines()


def test_a_class_of_a_program_is_left_alone_by_its_spawned_workers(tmp_path: Path) -> None:
    lines = script(
        tmp_path,
        """
        class Item:
            made, cache = 0, {}
            def __init__(self): Item.made += 1

        def same(job): return {"item": job["item"]}

        if __name__ == "__main__":
            cache = Item.cache
            with BossWorker(same, worker_count=1, start_method="spawn") as pool:
                pool.add_work({"item": Item()})
                for _ in range(9): Item()
                item = pool.get_result()["item"]
            print(Item.made, Item.cache is cache, type(item) is Item)
        """,
    )
    assert lines == ["10 True True"]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_what_a_program_defines_later_travels_as_it_is_now(tmp_path: Path, start_method: str) -> None:
    lines = script(
        tmp_path,
        f"""
        class Known:
            pass

        def f(): return "old"

        def handle(job):
            return {{"v": job["fn"](), "known": isinstance(job.get("k"), Known)}}

        if __name__ == "__main__":
            with BossWorker(handle, worker_count=1, start_method={start_method!r}) as pool:
                pool.add_work({{"fn": f}})
                print(pool.get_result())
                def f(): return "new"
                def later(): return "later"
                class Later:
                    def __call__(self): return "of a later class"
                for fn in (f, later, Later(), lambda: "lambda"):
                    pool.add_work({{"fn": fn, "k": Known()}})
                    print(pool.get_result())
        """,
    )
    words = ["old", "new", "later", "of a later class", "lambda"]
    expected = [{"v": word, "known": word != "old"} for word in words]
    assert lines == [f"<Result of job {n}, ok: {value}>" for n, value in enumerate(expected, 1)]


def test_a_pool_that_is_made_asks_no_module_for_what_it_makes_when_asked(tmp_path: Path) -> None:
    """A module's ``__getattr__`` may warn of a deprecated name, or import half of a library."""
    lines = script(
        tmp_path,
        """
        import sys, types
        lazy = sys.modules["lazy"] = types.ModuleType("lazy")
        exec("class Old: pass", vars(lazy))
        old = vars(lazy).pop("Old")
        lazy.__getattr__ = lambda name: print("asked for", name)
        with BossWorker(lambda job: {"same": job["class"] is old}, worker_count=1) as pool:
            print("made")
            del lazy.__getattr__
            pool.add_work({"class": old})
            print(pool.get_result()["same"])
        """,
    )
    assert lines == ["made", "True"]


def test_a_job_that_workers_cannot_know_says_what_to_do(tmp_path: Path) -> None:
    lines = script(
        tmp_path,
        """
        import sys, types
        module = sys.modules["module"] = types.ModuleType("module")

        def handle(job): return {}

        with BossWorker(handle, worker_count=1) as pool:
            exec("def later(): pass", vars(module))
            pool.add_work({"fn": module.later})
            print(pool.get_result()["ERROR"])
        """,
    )
    assert len(lines) == 1
    assert lines[0].startswith("BossWorkerAsync: the job could not be rebuilt in the worker: AttributeError: ")
    advice = 'make a new one, reload it, or use start_method="spawn")'
    assert lines[0].endswith(f"(workers know what was defined when the pool was made: {advice}")


def test_classes_are_looked_at_only_when_some_have_been_made(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at all of them costs a program that has forked as much as the rest of a start."""
    looks = []
    all_classes = pickling._all_classes

    def count() -> Iterator[type]:
        looks.append(1)
        return all_classes()

    monkeypatch.setattr(pickling, "_all_classes", count)
    pool(lambda job: {}, worker_count=1, start_method="fork")
    for _ in range(5):
        looks.clear()
        pool(lambda job: {}, worker_count=1, start_method="fork")
        if not looks:  # the garbage collector has not been all through in between
            break
    assert not looks

    class Mine: ...

    bw = pool(lambda job: {"mine": Mine()}, worker_count=1, start_method="fork")
    assert looks
    bw.add_work({})
    assert type(bw.get_result()["mine"]) is Mine
