"""External commands: how one is started, watched and ended, and the directory that tells about it.

In the program that asks::

    request.py     what somebody wants run, checked
    roots.py       where job directories are kept, and how an id is written
    handler.py     run_command: a pool's worker sees a command through
    interruption.py    what signals may do to it meanwhile
    family.py      which of a process's children are a command's
    detach.py      hands a detached command to the launcher

In the small processes of detached commands. (None of these modules may import more than it must, since each supervisor
pays for it in memory)::

    launcher.py    forks a supervisor for each order

    jobdir.py      the one module that knows what a job directory looks like
    folders.py     folders of any depth, listed and deleted
    identity.py    whether a pid is still the process that was meant
    program.py     starts a program: no Python between fork and exec
    tree.py        ends a process and all that it started: TERM, grace, KILL
    loop.py        waits for descriptors, deadlines and children, all in one poll
    supervisor.py  the life of one command, from its start to the last word in its directory
    outcome.py     from the facts to the record in status.json
"""
