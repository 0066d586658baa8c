"""The pool side by side with its peers: ``python -m benchmarks``.

rows.py        the table: what is measured beside what, and the floors
curves.py      what goes beyond the table: throughput against length and size, scaling, memory, idling, stalls
measure.py     sides in turn (A B A B ...), and the statistics
side.py        one side: a process that brings one pool up and measures it when told
peers.py       an adapter a library;  handlers.py: the work they all do
procfs.py      memory and CPU time of a process and its descendants
report.py      table and JSON;  plot.py: the picture
transports.py  a measurement of its own: sockets beside ZeroMQ
"""
