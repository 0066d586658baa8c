"""Watching a pool: what it does, while it does it. Nothing here knows a pool; what is to be shown is handed in.

pool_events     records of the boss's ring as JobQueued, JobStarted, ...
"""
