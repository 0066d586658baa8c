"""run_command: a worker of a pool sees a command through.

handler.py       CommandHandler;  family.py: which of a process's children are a command's
interruption.py  what signals may do to a command meanwhile
"""
