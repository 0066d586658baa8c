"""run_command: a worker of a pool sees a command through.

handler.py       CommandHandler, run_command: from a job to its result
run.py           one command, from its start to the last word;  end_watch.py: until its end
family.py        which of a process's children are a command's
interruption.py  what signals may do to a command meanwhile
"""
