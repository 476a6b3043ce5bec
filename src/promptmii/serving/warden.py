"""Holds a server: runs the command it is given, and ends it when whoever started this process is gone.

Started by its path, so that it imports nothing of promptmii. It leads a process group of its own, so Ctrl-C at the
terminal does not reach the server, and whatever the server started ends with it.
"""

import os
import select
import signal
import subprocess
import sys

POLL = 0.2
GRACE = 5.0
"""Seconds that the server has to end by itself."""


def hold(command: list[str]) -> None:
    """Run the server until it ends, until standard input is closed, or until the parent process is another one."""
    parent = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _go_on)  # unlike SIG_IGN, the server does not inherit this
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while server.poll() is None and os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin], [], [], POLL)
        if readable:  # nothing is ever written, so this is the end
            break
    os.killpg(0, signal.SIGTERM)
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        os.killpg(0, signal.SIGKILL)  # this process included


def _go_on(_number: int, _frame: object) -> None:
    pass


if __name__ == "__main__":
    hold(sys.argv[1:])
