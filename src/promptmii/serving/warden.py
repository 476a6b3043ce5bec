"""Holds a server: runs the command it is given, and ends it when whoever started this process is gone.

    warden.py PID COMMAND ...     PID is that of whoever starts it

Started by its path, so that it imports nothing of promptmii. It detaches itself: Ctrl-C at the terminal does not reach
the server, and Ray, which kills the children of its workers, does not kill this process before it has ended the server.
It leads a process group of its own, so whatever the server started ends with it. Its number is the first line on
standard output, which stays open as long as it lives; what the server says goes to standard error.
"""

import os
import select
import signal
import subprocess
import sys

POLL = 0.2
GRACE = 5.0
"""Seconds that the server has to end by itself."""


def hold(starter: int, command: list[str]) -> None:
    """Run the server until it ends, or until standard input is closed or the starter is gone."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _go_on)  # unlike SIG_IGN, the server does not inherit this
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    print(os.getpid(), flush=True)
    while server.poll() is None and _lives(starter):
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


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    hold(int(sys.argv[1]), sys.argv[2:])
