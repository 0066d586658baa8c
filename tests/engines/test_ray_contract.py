"""The contract of all pools, kept on Ray, where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bossworker import BossWorker
from tests.door.test_contract import *  # noqa: F403
from tests.engines.conftest import Face
from tests.engines.test_ray import local_ray

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module", autouse=True)
def one_cpu() -> Iterator[None]:
    """A cluster that runs one task at a time, in one process: as those of the other engines' contract."""
    with local_ray(1):
        yield


@pytest.fixture
def kind() -> str:
    return "ray"


@pytest.fixture
def face(pool: Callable[..., BossWorker]) -> Face:
    return lambda kind, handler, **settings: pool(handler, engine="ray://auto", **settings)
