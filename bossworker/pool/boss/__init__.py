"""The boss's process: owns the sockets and the queue, and never looks inside a job.

boss.py        puts all this together, and waits;  poller.py, reports.py: what it waits for;  chores.py: what it does
               besides, while there is something to be done;  first_workers.py: whether all first workers are up
ledger.py      decides, without I/O: what happens in, actions out (actions.py); which job is where
               job_queue.py: the jobs that wait;  job_lengths.py: how many of them make a batch
               staff.py: which workers there are (workers.py), who leaves and who comes;  starts.py: starts that fail;
               renewal.py: which handlers they have
               deadlines.py: what is due by the clock;  cancelling.py: jobs that somebody cancels
               dead_workers.py: jobs that a worker had when it died
pool_access.py      what whoever asks may see and change:  reloads.py: other handlers;  stacks.py: what workers do
caller_requests.py  what the caller asks for
door_requests.py    what other programs ask for, through the door;  client_lines.py: or over lines of their own
operations.py       what operators ask for;  replying.py: how requests are answered
performer.py   carries out what the ledger decides;  worker_orders.py, fork_server_orders.py: what workers and the fork
               server are told
worker_reader.py       what workers say;  fork_server_reader.py: who was started, and who has died or left
worker_lines.py        the lines to workers;  router_start.py: when ZeroMQ comes to them
intake.py      what workers hand in, checked;  delivery.py: results on their way to the caller
failed_jobs.py the last that have failed;  job_memory.py: how much memory those take that run
stats.py       what it counts;  recent.py: how fast it has been of late
event_ring.py  what happens, for whoever watches (watchers.py);  chronicle.py, notes.py: told to the program's logger
output_relay.py  what workers print, on its way to the caller;  output_pipes.py: those of one worker
                 job_tails.py: what each job has printed last
"""
