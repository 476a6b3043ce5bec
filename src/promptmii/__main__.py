"""The program: `promptmii`, or `python -m promptmii`."""

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

GRACE = 1.5
"""Seconds until a watchdog exits the process after a signal.

Python delivers `KeyboardInterrupt` only between two bytecodes of the main thread, and drops it inside finalisers.
Everything on disk survives a kill.
"""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []


def end_on_signals() -> None:
    """Install the handlers and the watchdog. Call once, in the main thread."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    watched, written = socket.socketpair()
    written.setblocking(False)
    # The C level writes the signal's number here at once, whatever the main thread is doing.
    signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(watched, written), daemon=True).start()


def leave_if_interrupted() -> None:
    """Exit with the signal's code if one has come: 130 for Ctrl-C, as shells say it.

    Call last. An interpreter that shuts down in the usual way waits for threads of libraries, or crashes in them.
    """
    if _received:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(128 + _received[0])
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # from here on one would only break into finalisers


def _interrupt(number: int, _frame: object) -> None:
    _received.append(number)
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a second one must not break the clean-up
    raise KeyboardInterrupt


def _watch(watched: socket.socket, _written: socket.socket) -> None:
    while (number := watched.recv(1)[0]) not in SIGNALS:
        pass
    time.sleep(GRACE)
    os._exit(128 + number)


def main() -> None:
    """Run the command line. Signals are handled before its imports, which take most of a second."""
    try:
        with suppress(KeyboardInterrupt):
            end_on_signals()
            from promptmii.cli import app

            app()
    finally:
        leave_if_interrupted()


if __name__ == "__main__":
    main()
