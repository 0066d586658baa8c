"""Commands by the thousand: one process, the host, sees many of them through at once. `bossworker run` stands on it.

hosting_wire.py  what is said between a run and its host
preparing.py     what its process does before it is told of its run;  later_modules.py: what it loads once it has lived
                 for a while
host.py          the host: hears of ends, sees to limits;  run_link.py: its end of the line to its run
single_spawning.py     how it starts commands: one after the other
threaded_spawning.py   or by threads of the core (native/spawners.c)
hosted.py        one command in it
capture.py       the files that its output goes to;  relaying.py: or passes it on line by line
cells.py         what has begun and ended, in memory that both share: true also when one of them is killed
lost_records.py  what is told of commands whose host was killed
remainder.py     what commands that have ended have left running
kept.py          what failed gets a job directory
"""
