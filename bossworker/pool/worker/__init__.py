"""The processes that run handlers.

worker.py      claims jobs, runs the handler, leaves results in its flight recorder
bootstrap.py   what it does first, to be a process of its own;  leaving.py: and at its end, so that nothing is cut off
offspring.py   what a job has started, and its end when the job's time is up
forkserver.py  forks the workers and reaps them: the only fork and the only waitpid of a pool
"""
