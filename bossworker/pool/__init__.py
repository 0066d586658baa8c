"""The pool: jobs in, results out, and nothing lost in between.

Four processes, a folder each, and what lies between them::

    launch.py    starts the boss;  fresh_interpreter.py: by spawn;  options.py: the settings of a pool, checked
    caller/      the handle, in the program that uses the pool
    boss/        queues jobs, watches deadlines and workers
    worker/      runs the handlers; and the fork server, which forks the workers and reaps them
    wire/        what the processes say to each other, and the memory that they share
    door/        how other programs come in
    reloading.py handlers for workers that are started later
"""
