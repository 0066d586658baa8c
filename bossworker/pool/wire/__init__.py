"""Between the processes of a pool.

messages.py    the wire contract: kinds of frames and their layouts
frames.py      frames, packed and cut;  link.py: over sockets
worker_wire.py a worker's line to the boss;  zmtp.py: its end of ZeroMQ;  router.py: the boss's;  doorway.py: where
               workers find that
batch.py       jobs, cut and joined without being read;  segments.py: results, likewise;  client_jobs.py: jobs of others
codec.py       jobs and results become bytes;  opaque.py: pickles of anybody's become text
recorder.py    the flight recorder: memory that a worker shares with the boss
               memory_file.py: the file it lies in;  filed_memory.py, kept_results.py: one that outlives a pool
               shared_counter.py: counts in it;  progress.py: what a job says of itself
mailbox.py     small orders and reports, in that memory
output_frames.py  what workers print
parcel.py      large payloads, in shared memory
spin.py        staying awake while an answer is due
"""
