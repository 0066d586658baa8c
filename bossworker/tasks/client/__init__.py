"""In the programs that use tasks.

task_pool.py          TaskPool: spawn and search;  patterns.py: what is found
task.py               Task;  stream.py: its streams;  events.py: what happens to it
current.py            for the command itself: the task that it is
spawning.py           has a supervisor started;  shared_connection.py: talks to one
contact.py            one task as a program reaches it: its files, its supervisor
task_record.py        what is on the disk of a task;  survey.py: all tasks of a pool at once
leftovers.py          what outlived a supervisor that was killed
"""
