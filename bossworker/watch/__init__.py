"""Watching a pool: what it does, while it does it. Nothing here knows a pool; what is to be shown is handed in.

event_records.py   the records of the boss's ring
pool_events.py     events made of them: JobQueued, JobStarted, ...;  chrome_trace.py: a trace made of them
progress_bar.py    how far a map is
relayed_lines.py   what workers have printed, in the program
"""
