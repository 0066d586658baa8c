"""External commands: how one is started, watched and ended, and the directory that tells about it.

request.py      what somebody wants run, checked
roots.py        where job directories are kept, and how an id is written
jobdir.py       the one module that knows what a job directory looks like
removal.py      it is deleted
job_status.py   from the facts to the record in status.json
record.py       what is true of a job: what its directory says, held against what runs
safe_files.py   files in folders that others may write to
ended_job.py    the directory of a command that had none while it ran
output.py       its streams' files: read, and cut to a length
quota.py        what it may take of memory and disk
terminal.py     a terminal for it
hosting/        bossworker run: one process sees many commands through at once
inline/         run_command: a pool's worker sees a command through
supervision/    detached commands, each under a supervisor of its own
"""
