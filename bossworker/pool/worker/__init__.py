"""The processes that run handlers.

forkserver.py  forks the workers and reaps them: the only fork and the only waitpid of a pool
worker.py      from its start to its end: waits for batches, has them run, reports
job_runner.py  claims the jobs of a batch, runs the handler, leaves results in the flight recorder
               plain_jobs.py: the same for jobs of plain data, faster, by the compiled core or by python_loop.py
               job_steps.py: steps of it
current_job.py what a handler may know of its job
offspring.py   what a job has started, and its end when the job's time is up
relayed_output.py  what is printed goes to the boss;  stack_file.py: where a stack is written when it is asked for
leaving.py     what a worker does at its end, so that nothing is cut off
"""
