"""The processes that run handlers.

worker.py      claims jobs, runs the handler, leaves results in its flight recorder
compiled_loop.py    the same for jobs of plain data, with the compiled core
leaving.py     what it does at its end, so that nothing is cut off
offspring.py   what a job has started, and its end when the job's time is up
forkserver.py  forks the workers and reaps them: the only fork and the only waitpid of a pool
"""
