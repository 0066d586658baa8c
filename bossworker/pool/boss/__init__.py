"""The boss's process: owns the sockets and the queue, and never looks inside a job.

boss.py        reads, and performs what the ledger decides;  poller.py, reports.py: what it waits for
ledger.py      decides, without I/O: jobs and workers in, actions out (actions.py, workers.py)
worker_lines.py  what it speaks to workers over
job_queue.py   the jobs that wait;  delivery.py: results on their way to the caller
stats.py       what it counts
"""
