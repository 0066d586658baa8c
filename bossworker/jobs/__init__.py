"""Commands that outlive the program that started them: run, and ask later, from any process, by job id.

Every call but `start` takes the id of a job, of `start` or of `run_command`, and the `root` it lives under: the
argument, else ``$BOSSWORKER_ROOT``, else ``bossworker`` in the user's state directory. An id that is malformed or
unknown gets ``unknown``, None, False or nothing; never an exception, never another file. (OSError in a process that has
no descriptors left, since then nothing can be known.) After Proc::Async, with what it lacked: stdin, timeout, env, cwd,
meta, wait, follow, listing, resource use, the end of whole trees.

    control.py   start, signal, wait;  status, details, info and listing are those of ``commands/record.py``
    waiting.py   for the end of somebody else's child
    cleaning.py  clean
    files.py     stdout, stderr, follow, result, result_list
"""

from bossworker.commands.record import Info, Status, details, get_configuration, info, is_finished, listing, status
from bossworker.jobs.cleaning import clean
from bossworker.jobs.control import signal, start, wait
from bossworker.jobs.files import follow, result, result_list, stderr, stdout, working_dir

__all__ = [
    "Info",
    "Status",
    "clean",
    "details",
    "follow",
    "get_configuration",
    "info",
    "is_finished",
    "listing",
    "result",
    "result_list",
    "signal",
    "start",
    "status",
    "stderr",
    "stdout",
    "wait",
    "working_dir",
]


def __dir__() -> list[str]:
    return sorted(__all__)
