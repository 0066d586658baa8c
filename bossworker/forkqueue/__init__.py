"""Limits how many child processes run at once, in programs that fork.

``fork``, ``run_back`` and ``system_back`` start a child, but wait first while too many are running. A
:class:`ForkQueue` is used as an object; or as the default queue, by this module's functions; or unseen, by a program
that knows nothing of it, after :func:`install` or inside ``with installed(size=4):``.

The files::

    queue.py       the queue, as programs use it;  settings.py: checked when they are set
    admission.py   which thread may start a child, and when;  limits.py: load and memory
    children.py    which children there are, and which have ended;  sleeper.py: sleeping until one does
    waits.py       wait, waitpid and their kin
    child.py       what a child does;  calls.py: a value back from it
    installed.py   the default queue in the place of os.fork and its kin;  ``system/originals.py``: those themselves

Source: Proc::Queue.
"""

from bossworker.forkqueue.calls import Call, ChildDied, ChildTraceback
from bossworker.forkqueue.installed import default_queue, install, installed, uninstall
from bossworker.forkqueue.queue import ForkQueue

__all__ = [
    "Call",
    "ChildDied",
    "ChildTraceback",
    "ForkQueue",
    "all_exit_ok",
    "call",
    "default_queue",
    "exit",
    "fork",
    "fork_now",
    "install",
    "installed",
    "run_back",
    "run_back_now",
    "running_now",
    "running_weight",
    "system_back",
    "system_back_now",
    "uninstall",
    "wait",
    "waitpid",
    "waitpids",
]

fork = default_queue.fork
fork_now = default_queue.fork_now
wait = default_queue.wait
waitpid = default_queue.waitpid
waitpids = default_queue.waitpids
run_back = default_queue.run_back
run_back_now = default_queue.run_back_now
call = default_queue.call
system_back = default_queue.system_back
system_back_now = default_queue.system_back_now
all_exit_ok = default_queue.all_exit_ok
running_now = default_queue.running_now
running_weight = default_queue.running_weight
exit = default_queue.exit


def __dir__() -> list[str]:
    return sorted(__all__)
