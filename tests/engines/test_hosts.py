"""Two "hosts", each a network namespace with a wire of its own to this one. Needs root, ``ip`` and --long."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bossworker import BossWorker
from tests.conftest import wait_for
from tests.engines.conftest import pool_traces
from tests.engines.marks import PATIENCE, leave_a_mark, runs
from tests.engines.test_losses import Commands


def ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0


class Host:
    """A namespace, and the wire between it and this one."""

    def __init__(self, number: int) -> None:
        self.name = f"bw{os.getpid()}-{number}"
        self.wire = f"bw{os.getpid() % 100_000}h{number}"
        net = f"198.18.{os.getpid() % 200 + 10 * number}"  # of those meant for such tests
        self.here, self.there = f"{net}.1", f"{net}.2"

    def make(self) -> bool:
        inside = f"{self.wire}n"
        steps = (
            f"netns add {self.name}",
            f"link add {self.wire} type veth peer name {inside}",
            f"link set {inside} netns {self.name}",
            f"addr add {self.here}/30 dev {self.wire}",
            f"link set {self.wire} up",
            f"-n {self.name} addr add {self.there}/30 dev {inside}",
            f"-n {self.name} link set {inside} up",
            f"-n {self.name} link set lo up",
            f"-n {self.name} route add default via {self.here}",
        )
        return all(ip(*step.split()) for step in steps)

    def cut(self) -> None:
        ip("link", "set", self.wire, "down")

    def remove(self) -> None:
        ip("link", "del", self.wire)
        ip("netns", "del", self.name)


@pytest.fixture
def hosts(request: pytest.FixtureRequest) -> Iterator[list[Host]]:
    if not request.config.getoption("--long"):
        pytest.skip("takes a minute, since nodes are patient with a program that is silent: --long")
    made = [Host(number) for number in (1, 2)]
    try:
        if os.geteuid() or shutil.which("ip") is None or not all(host.make() for host in made):
            pytest.skip("network namespaces cannot be made here")
        yield made
    finally:
        for host in made:
            host.remove()


def test_a_wire_is_cut(
    tmp_path: Path, hosts: list[Host], pool: Callable[..., BossWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ran beyond it is lost, and does not run again; the rest goes on; nothing is left over there."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP", "12s")  # after which a wire counts as cut; the least
    commands = Commands(tmp_path)
    try:
        commands.start_scheduler("0.0.0.0")
        port = commands.address.rpartition(":")[2]
        for host in hosts:
            inside = ("ip", "netns", "exec", host.name)
            commands.start_worker(host=host.there, address=f"tcp://{host.here}:{port}", before=inside)
        with distributed.Client(f"tcp://{hosts[0].here}:{port}", set_as_default=False) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
            bw = pool(leave_a_mark, engine=client)
            bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(6)))
            wait_for(lambda: len(runs(tmp_path)) == 2, PATIENCE)
            begun = set(runs(tmp_path))
            hosts[1].cut()
            (lost,) = [bw.get_result()]
            (tmp_path / "go").touch()
            assert lost.job["n"] in begun
            assert f"node lost (tcp://{hosts[1].there}:" in (lost.error or "")
            results = list(bw.results())
            assert all(result.ok for result in results)
            assert {lost.job["n"], *(result["n"] for result in results)} == set(range(6))
            assert runs(tmp_path) == Counter(range(6))
            bw.shut_down()
            wait_for(lambda: not pool_traces(), PATIENCE)
    finally:
        commands.end()
