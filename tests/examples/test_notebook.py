"""The notebook runs from its first cell to its last, in a kernel of its own, and prints what is stored in it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.examples.runner import PROJECT, SECONDS, environment

pytestmark = pytest.mark.skipif(  # they are not loaded here, but in a program of their own
    not (importlib.util.find_spec("nbclient") and importlib.util.find_spec("ipykernel")), reason="needs a kernel"
)

NOTEBOOK = PROJECT / "examples" / "notebook.ipynb"
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
nbclient.NotebookClient(notebook, timeout=float(sys.argv[2]), kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[3])
"""  # in a process of its own, with the event loop that it leaves behind


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return found


def printed(cell: dict[str, Any]) -> str:
    streams = [output for output in cell.get("outputs", ()) if output["output_type"] == "stream"]
    assert {stream["name"] for stream in streams} <= {"stdout"}, streams  # no warning, no complaint
    return "".join("".join(stream["text"]) for stream in streams)


def shown(cell: dict[str, Any]) -> list[str]:
    """The titles of what is shown as a table."""
    pages = ["".join(output["data"]["text/html"]) for output in cell.get("outputs", ()) if "data" in output]
    return [page.partition("</b>")[0].removeprefix("<div><b>").partition(",")[0] for page in pages]


def run_notebook(notebook: Path, ran: Path) -> list[dict[str, Any]]:
    """Its cells, as they are when each has been run."""
    command = [sys.executable, "-c", EXECUTE, str(notebook), str(SECONDS), str(ran)]
    told = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return cells(ran)


def test_the_notebook_prints_what_it_says(tmp_path: Path) -> None:
    before, after = cells(NOTEBOOK), run_notebook(NOTEBOOK, tmp_path / "ran.ipynb")
    assert [printed(cell) for cell in after] == [printed(cell) for cell in before]
    assert [title for cell in after for title in shown(cell)] == [
        "BossWorker shapes",
        "Result of job 7",
        "Stats: 0 queued",
    ]


CELLS = (
    """
import os, sys
from bossworker import BossWorker
def talk(job):
    print("printed", job["n"])
    print("complained", job["n"], file=sys.stderr, flush=True)
    os.system(f"echo from a command {job['n']}")
pool = BossWorker(talk, worker_count=1, start_method="spawn", logs="relay")
""",
    "pool.add_work({'n': 1})\n_ = pool.get_result()",
    "pool.add_work({'n': 2})\n_ = pool.get_result()",
    "pool.shut_down()",
)


def test_what_handlers_print_appears_under_the_cell_that_asks_for_the_result(tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.ipynb"
    code: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    told = {
        "cells": [{**code, "id": f"cell-{at}", "source": text} for at, text in enumerate(CELLS)],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    notebook.write_text(json.dumps(told))
    _, *asked, last = run_notebook(notebook, tmp_path / "ran.ipynb")
    assert last["outputs"] == []
    for n, cell in enumerate(asked, 1):
        streams = dict.fromkeys(("stdout", "stderr"), "")
        for output in cell["outputs"]:
            streams[output["name"]] += "".join(output["text"])
        assert sorted(streams["stdout"].splitlines()) == [f"job {n} │ from a command {n}", f"job {n} │ printed {n}"]
        assert streams["stderr"] == f"job {n} │ complained {n}\n"
