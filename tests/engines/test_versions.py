"""Program and nodes of different versions say so, by the first line of what they send: nothing else of it is read."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bossworker import BossWorker, WorkerStartError
from bossworker.engines import engine_tasks, node_messages
from bossworker.engines.adapter import refused
from bossworker.engines.node_messages import (
    SPOKEN,
    BatchAnswer,
    BatchOrder,
    Body,
    Node,
    NodeRequest,
    VersionError,
    packed,
    unpacked,
    unpacked_answer,
)
from tests.engines.conftest import Face

OTHER = "bossworker 9.9.9 (form 7.01234567)"
UNREADABLE = OTHER.encode() + b"\n" + b"what version 9.9.9 has to say"


class Trap:
    """Whoever decodes it fails the test."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("it was decoded",)


def test_messages_are_read_by_their_own_version() -> None:
    assert tuple(unpacked(packed(NodeRequest("report")))) == NodeRequest("report")
    assert packed(NodeRequest("report")).startswith(SPOKEN.encode() + b"\n")


@pytest.mark.parametrize(
    "data", [UNREADABLE, OTHER.encode() + b"\n" + pickle.dumps(Trap()), pickle.dumps(Trap()), b"", b"\n", b"x" * 1000]
)
def test_others_are_refused_before_they_are_decoded(data: bytes) -> None:
    with pytest.raises(VersionError, match="install the same version here and on all nodes") as caught:
        unpacked(data)
    assert SPOKEN in str(caught.value)
    assert (OTHER in str(caught.value)) == data.startswith(OTHER.encode())


def test_a_form_is_that_of_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """So nobody has to think of it who adds one."""
    form = node_messages._form()
    assert SPOKEN.endswith(f"(form {form})")
    monkeypatch.setattr(BatchAnswer, "_fields", (*BatchAnswer._fields, "more"))
    assert node_messages._form() != form


def test_a_node_refuses_what_it_does_not_understand() -> None:
    node, order = Node("here"), packed(BatchOrder(1, b"", False))
    for spec, told in ((UNREADABLE, order), (packed(("too few fields",)), UNREADABLE)):
        claim = lambda number: pytest.fail("claimed")  # noqa: E731
        answer = unpacked_answer(*engine_tasks.run_batch(spec, told, Body(b""), node, claim))
        assert answer.verdict == "unstarted"
        assert OTHER in answer.reason
    (why,) = unpacked(engine_tasks.attend("pool", UNREADABLE, node))
    assert OTHER in why
    assert refused(VersionError(why)).verdict == "unstarted"


@pytest.fixture
def another_version(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Makes this program one."""

    def become() -> None:
        monkeypatch.setattr(node_messages, "SPOKEN", OTHER)

    yield become
    monkeypatch.undo()


def test_a_pool_does_not_start_on_nodes_of_another_version(
    face: Face, kind: str, another_version: Callable[[], None]
) -> None:
    another_version()
    with pytest.raises(WorkerStartError) as caught:
        face(kind, lambda job: job, worker_count=1)
    assert SPOKEN in str(caught.value)
    assert OTHER in str(caught.value)


def test_batches_wait_for_a_node_that_understands_them(
    pool: Callable[..., BossWorker], dask_client: Any, another_version: Callable[[], None]
) -> None:
    """Some nodes have another version: it is told, no job is lost, and those of the same version run them."""
    bw = pool(lambda job: {"n": job["n"]}, engine=dask_client, worker_count=1)
    adapter = bw._adapter  # type: ignore[attr-defined]
    ours = adapter.packed_spec
    adapter.packed_spec = UNREADABLE
    bw.add_work({"n": 1})
    while not (why := bw.stats().start_error):
        assert bw.get_result(timeout=0.05) is None
    assert OTHER in why
    adapter.packed_spec = ours
    assert bw.get_result()["n"] == 1
