"""Holds a listening socket as its descriptor 3 and starts the given command with it for each line of its input.

Prints the port, then "ended <pid> <code>" whenever one of them ends.
"""
import os
import socket
import subprocess
import sys
import threading

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(4096)
os.dup2(listener.fileno(), 3)
print("port", listener.getsockname()[1], flush=True)


def wait(child):
    code = child.wait()
    print("ended", child.pid, code, flush=True)


children = []
for _ in sys.stdin:
    # LISTEN_PID must name the process itself: the shell becomes it.
    child = subprocess.Popen(["/bin/sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh", *sys.argv[1:]], pass_fds=[3])
    children.append(child)
    threading.Thread(target=wait, args=[child]).start()
for child in children:
    if child.poll() is None:
        child.kill()
