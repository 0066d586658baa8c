"""Doors: how other programs come into a pool, over ZeroMQ.

In the pool's program: listening.py (``Door``), side_process.py (how its process is started), addresses.py, keys.py
In the door's process: door_server.py, door_router.py (the ROUTER), greeting.py (who is let in), door_clients.py
On both sides:         door_protocol.py, json_form.py (``accept="json"``)
In a client:           attachment.py, client_link.py (a door at a path), porter.py (the process that holds ZeroMQ else)

The handle itself is ``caller/attached.py``; the boss's side is ``boss/door_requests.py``.
"""
