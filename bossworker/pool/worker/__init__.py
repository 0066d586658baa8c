"""The processes that run handlers.

worker.py      claims jobs, runs the handler, leaves results in its flight recorder
bootstrap.py   what it does first, to be a process of its own;  leaving.py: and at its end, so that nothing is cut off
forkserver.py  forks the workers and reaps them: the only fork and the only waitpid of a pool
"""
