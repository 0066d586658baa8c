"""What the operating system can do and tell. Nothing in here knows of pools, jobs or tasks.

processes.py    parents, orphans, exits;  memory.py: what they hold
descendants.py  a process and all that it started, and their end;  process_tree.py: the same for people to read
identity.py     whether a pid is still the process that was meant, and whether we can see it;  proc.py: reads /proc
exits.py        exit functions of this process
cpus.py         how many processors we may use;  descriptors.py: which must not be inherited
program.py      starts a program: no Python between fork and exec;  starter.py: thousands of them, one after the other
eventloop.py    waits for descriptors, deadlines and children, all in one poll
folders.py      folders of any depth, listed and deleted;  mounts.py: what they are on;  syncing.py: what is to be there
                after a power cut
signals.py, stdio.py, circumstances.py    what a process inherits;  signal_pipe.py: signals that come as we go to sleep
own_process.py  what a forked child does to be a process of its own
titles.py       what ps shows of it
forking.py, originals.py    os.fork in the program's name; it and its kin under a fork queue
one_step.py     several changes as one;  compiled.py: the compiled core, where there is one
checks.py       checks of values that several parts take;  callers_line.py: the line of the program that called us
records.py      what is needed of `typing`, without it
cpython.py      what is private to CPython;  multiprocess.py: to multiprocessing;  newcomers.py: whether there are new
                classes;  wall_clock.py: Unix times of monotonic ones
"""
