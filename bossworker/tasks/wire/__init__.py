"""Between the clients of a task and its supervisor.

protocol.py            frames, as JSON with bytes behind;  control_connection.py: a client's end
directory.py           where a pool of tasks is;  task_info.py: what info() tells
stream_files.py        the files of a stream;  stream_reader.py: reads them
socket_paths.py        sockets with long paths;  lockfile.py: locks on files
"""
