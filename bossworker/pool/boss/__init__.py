"""The boss's process: owns the sockets and the queue, and never looks inside a job.

boss.py        waits, and performs what the ledger decides;  poller.py, reports.py: what it waits for
ledger.py      decides, without I/O: jobs and workers in, actions out (actions.py, workers.py)
               deadlines.py: what is due by the clock;  job_lengths.py: how many jobs make a batch
caller_requests.py  what the caller asks for
door_requests.py    what other programs ask for, through the door
worker_traffic.py   what goes between boss and workers;  worker_lines.py: over what
intake.py      what workers hand in, checked;  starts.py: starts that fail, and when to try again
job_queue.py   the jobs that wait;  delivery.py: results on their way to the caller
stats.py       what it counts;  recent.py: how fast it has been of late
event_ring.py  what happens, for whoever watches (watchers.py);  chronicle.py, notes.py: told to the program's logger
output_relay.py  what workers print, on its way to the caller;  output_pipes.py: those of one worker
"""
