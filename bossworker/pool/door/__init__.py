"""Doors: how other programs come into a pool, over ZeroMQ.

In the pool's program: listening.py (``Door``), side_process.py (how its process is started), addresses.py, keys.py
In the door's process: door_server.py (its loop), door_poller.py, door_router.py (the ROUTER), boss_line.py
                       arrivals.py, greeting.py (who is let in), presence.py (who has hung up)
                       door_clients.py, journaled_clients.py (what is known of them, and kept)
                       client_requests.py (what they ask for), results_out.py, client_mail.py, direct_lines.py (what
                       they are sent)
                       operators.py (who looks at the pool and steers it)
On both sides:         door_protocol.py, json_form.py (``accept="json"``)
In a client:           attachment.py, client_link.py (a door at a path), porter.py (the process that holds ZeroMQ else)
                       operator_line.py (an operator's)

The handle itself is ``caller/attached.py``; the boss's side is ``boss/door_requests.py``.
"""
