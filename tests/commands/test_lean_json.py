"""JSON by its C half alone says the same as the whole module, in a process that never loads that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from bossworker.system.clib import loads
for text in ("{", '{"a" 1}', "[1,", '"a', "nul", "", "1 2", '{"a":}'):
    try:
        loads(text)
    except ValueError:
        continue
    print(text)
print(loads('{"a": [1, 2.5, null, "\\\\u00fc"]}'), "json" in sys.modules)
"""


def test_what_is_no_json_is_a_value_error() -> None:
    folder = str(Path(__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, folder], capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"{json.loads(json.dumps({'a': [1, 2.5, None, 'ü']}))} False\n"
