"""Detached commands: each under a small process of its own, the supervisor.

launcher.py, supervisor.py and what they import must not import more than they need: each supervisor pays for it in
memory.

    launching.py       in the program: the line to its launcher, which is handed orders
    interpreter.py     starts a launcher, and tells why it cannot be
    orders.py          the launcher's wire
    launcher.py        forks a supervisor for each order, which names the function that this runs
    supervisor.py      the life of one command, from its start to the last word in its directory
    job_supervisor.py  that of a detached job: its limits, its terminal
"""
