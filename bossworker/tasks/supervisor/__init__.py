"""The process that supervises one task.

startup.py          from a request to a command that runs, and the supervisor's last words
task_supervisor.py  the command's life;  restarts.py: decides whether it is started again
clients.py          who is connected;  requests.py: what they may ask for;  task_events.py: what they are told of
streams.py          all streams of the command;  pipes.py: the pipes and sockets;  store.py: the files
"""
