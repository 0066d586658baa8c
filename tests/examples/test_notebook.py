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


def test_the_notebook_prints_what_it_says(tmp_path: Path) -> None:
    ran = tmp_path / "ran.ipynb"
    command = [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(SECONDS), str(ran)]
    told = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    before, after = cells(NOTEBOOK), cells(ran)
    assert [printed(cell) for cell in after] == [printed(cell) for cell in before]
    assert [title for cell in after for title in shown(cell)] == [
        "BossWorker shapes",
        "Result of job 7",
        "Stats: 0 queued",
    ]
