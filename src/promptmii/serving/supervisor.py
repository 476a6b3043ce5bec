"""Runs a server, and ends it when the process that started this one is gone.

    supervisor.py PID COMMAND ...     PID is the process that starts this one

Run by its path, so it imports nothing from promptmii. It detaches itself: Ctrl-C at the terminal does not reach the
server, and Ray, which kills the children of its workers, does not kill this process before it has ended the server.
It leads its own process group, so that whatever the server starts ends too. It prints the number of that group, and
keeps its standard output open while it lives; the server's output goes to standard error.
"""

import os
import select
import signal
import subprocess
import sys

POLL = 0.2
GRACE = 5.0
"""Seconds for the server to end after SIGTERM."""


def supervise(starter: int, command: list[str]) -> None:
    """Run the server until it ends, standard input is closed, or the starter is gone."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)  # unlike SIG_IGN, the server does not inherit a handler
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    print(os.getpid(), flush=True)
    while server.poll() is None and _is_alive(starter):
        readable, _, _ = select.select([sys.stdin], [], [], POLL)
        if readable:  # closed, because nothing is ever written to it
            break
    os.killpg(0, signal.SIGTERM)
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        os.killpg(0, signal.SIGKILL)  # including this process


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    supervise(int(sys.argv[1]), sys.argv[2:])
