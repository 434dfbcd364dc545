"""Runs a program that asks for a secret, on a terminal whose output nobody reads at first: its question is stuck, so that
what the program has done before asking can be seen. Prints "silent" when the terminal had ceased to echo by then."""

import os
import pty
import subprocess
import sys
import termios
import time

LIMIT = time.monotonic() + 60
controller, terminal = pty.openpty()
reader, writer = os.pipe()
os.set_blocking(writer, False)
try:
    while True:
        os.write(writer, b"." * 4096)
except BlockingIOError:
    pass
os.set_blocking(writer, True)

program = subprocess.Popen(sys.argv[1:], stdin=terminal, stdout=subprocess.DEVNULL, stderr=writer)
os.close(writer)
while termios.tcgetattr(terminal)[3] & termios.ECHO and time.monotonic() < LIMIT and program.poll() is None:
    time.sleep(0.01)
if not termios.tcgetattr(terminal)[3] & termios.ECHO:
    print("silent")
asked = 0
seen = b""
while asked < 2:
    piece = os.read(reader, 65536)
    if not piece:
        break
    seen = (seen + piece).replace(b".", b"")
    while asked < seen.count(b": ") and asked < 2:
        os.write(controller, os.environ["SECRET"].encode() + b"\n")
        asked += 1
while os.read(reader, 65536):
    pass
sys.exit(program.wait(60))
