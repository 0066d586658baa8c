"""The process that supervises one task.

startup.py          from a request (client/spawning.py, by way of the launcher) to a command that runs; its last words
task_supervisor.py  the command's life
task_ledger.py      what is decided of it, without I/O;  restarts.py: whether and when a command is started again
clients.py          who is connected;  requests.py: what they may ask for;  task_events.py: what they are told of
streams.py          all streams of the command;  pipes.py: the pipes and sockets;  store.py: the files
"""
