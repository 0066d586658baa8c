"""In the program: the handle, and the way of a job to the boss and of a result back.

client.py      BossWorker: what it is made with, and its end;  starting.py: its processes and its handle come to be
               handles.py: all of this process;  job_types.py, pool_settings.py: for type checkers
adding.py      add_work, submit, cancel;  retrieving.py: get_result, results, map
controls.py    pause, reload, stack;  looks.py: stats, events, trace;  openings.py: listen, web
outbox.py      jobs get ids and are sent;  sent_jobs.py: what is kept of them until their results come
inbox.py       results, each given out once;  result_queue.py: where they wait;  unpacking.py: made of bytes
               taps.py: who else is told of jobs and results
mapping.py     map() over an iterable;  pool_future.py, futures.py: those of submit(), and who resolves them
connection.py  frames to and from the boss;  listener_turns.py: which thread listens;  awaited_fds.py: to what;
               link_reading.py: what comes;  said_by_boss.py: of its workers and its end;  replies.py: answers
               readiness.py: what fileno() gives
deferred.py    a pool that is started later
call_futures.py    calls of functions, and their futures;  call_map.py: many of one;  call_errors.py: what they raise;
                   call_pools.py: the pools of executors
state.py       what may be asked of the handle now;  ending.py: how it ends
inline_pool.py a pool without processes
on_loop.py     one on an event loop;  loop_connection.py: its line;  tickets.py: its jobs;  loop_map.py: its map
journaled.py   a pool with a journal:  journal_line.py, journal_outbox.py, given_out.py, recalled.py
doors.py       listen();  own_page.py: web();  attached.py, door_connection.py: a client's handle
operating.py   the operator's face of a pool;  remote_operator.py: of another program's
"""
