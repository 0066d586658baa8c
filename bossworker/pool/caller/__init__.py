"""In the program: the handle, and the way of a job to the boss and of a result back.

client.py      BossWorker: how it begins and ends;  handles.py: all of this process
adding.py      add_work, submit, cancel;  retrieving.py: get_result, results, map
controls.py    pause, reload, stack;  looks.py: stats, events, trace
outbox.py      jobs get ids and are sent;  sent_jobs.py: what is kept of them until their results come
inbox.py       results, each given out once;  result_queue.py: where they wait;  unpacking.py: made of bytes
mapping.py     map() over an iterable;  pool_future.py, futures.py: those of submit(), and who resolves them
connection.py  frames to and from the boss;  listener_turns.py: which thread listens;  awaited_fds.py: to what;
               replies.py: answers
deferred.py    a pool that is started later
call_futures.py    calls of functions, and their futures;  call_map.py: many of one;  call_errors.py: what they raise
state.py       what may be asked of the handle now;  ending.py: how it ends
inline_pool.py a pool without processes;  on_loop.py: one on an event loop
doors.py       listen();  attached.py, door_connection.py: a client's handle
"""
