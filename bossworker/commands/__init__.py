"""External commands: how one is started, watched and ended, and the directory that tells about it.

What a supervisor, a process of its own for a command, needs of it (and nothing here may import more than it must, since
each supervisor pays for it in memory)::

    jobdir.py      the one module that knows what a job directory looks like
    identity.py    whether a pid is still the process that was meant
    program.py     starts a program: no Python between fork and exec
    tree.py        ends a process and all that it started: TERM, grace, KILL
    loop.py        waits for descriptors, deadlines and children, all in one poll
    supervisor.py  the life of one command, from its start to the last word in its directory
    bare.py        the C halves of json, signal and socket
"""
