"""Between the processes of a pool.

messages.py    the wire contract: kinds of frames and their layouts
link.py        frames over sockets
batch.py       jobs, cut and joined without being read;  segments.py: results, likewise
codec.py       jobs and results become bytes
recorder.py    the flight recorder: memory that a worker shares with the boss
               memory_file.py: the file it lies in;  shared_counter.py: the counts in it
parcel.py      large payloads, in shared memory
spin.py        staying awake while an answer is due
"""
