"""Engines: the same handle on a cluster that others keep, or on any ``concurrent.futures.Executor``.

``BossWorker(handler, engine=...)`` keeps its queue in the program. Jobs travel as batches, each a task of the engine.
In each of the engine's workers (a **node**), a part of the pool is resident, with boss and workers, and runs them::

    in the program
        engine_pool.py      the handle, and its connection, at whose other end there is no boss but
        engine_line.py      a thread;  line_calls.py  how others reach it;  program_side.py  what it tells the handle
        line_orders.py      what the handle asks for;  line_renewals.py  other handlers;  line_ending.py  how it ends
        line_batches.py     has batches run;  line_beats.py  asks the nodes, now and again
        batch_book.py       what it decides: what is queued, which batch is where, what becomes of lost ones
        batch_sizes.py      how many jobs make a batch
        flight_notes.py     what is noted of it for the next owner of a journal
        adapter.py          what an engine has to be able to do;  dask_engine.py  executor_engine.py  ray_engine.py
        home_line.py        the line that nodes of this machine have to the program, where the engine has none
        home_folder.py      the folder that it has its socket in, and those that were left
    on a node
        engine_tasks.py     the functions that engines call there
        resident.py         the pool that they find, or start;  node_batch.py  a batch that it has
        node_connection.py  its line to its boss
        node_figures.py     what it tells of itself
    node_messages.py        what travels between the two;  node_times.py  and whose times are in it
"""
