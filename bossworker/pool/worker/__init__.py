"""The processes that run handlers.

worker.py      claims jobs, runs the handler, leaves results in its flight recorder
leaving.py     what it does at its end, so that nothing is cut off
offspring.py   what a job has started, and its end when the job's time is up
forkserver.py  forks the workers and reaps them: the only fork and the only waitpid of a pool
"""
