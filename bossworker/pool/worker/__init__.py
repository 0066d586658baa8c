"""The processes that run handlers.

worker.py      claims jobs, runs the handler, leaves results in its flight recorder
forkserver.py  forks the workers and reaps them: the only fork and the only waitpid of a pool
"""
