"""The entry point of `promptmii` and `python -m promptmii`."""

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

GRACE = 1.5
"""Seconds that a signalled process may take to stop before a watchdog ends it.

`KeyboardInterrupt` alone is not enough: Python raises it only between two bytecodes of the main thread, and drops it
inside finalisers. Ending the process is safe, because everything on disk survives a kill.
"""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []


def end_on_signals() -> None:
    """Install the handlers and the watchdog. Call once, in the main thread."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # Python's C code writes the signal's number here at once, whatever the main thread is doing.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, writer), daemon=True).start()


def leave_if_interrupted() -> None:
    """Exit at once if a signal was received, with the code that shells use: 130 for Ctrl-C.

    Call this last. A normal interpreter shutdown would wait for threads of libraries, or crash in them.
    """
    if _received:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(128 + _received[0])
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # from here on, our handler would only disturb finalisers


def _interrupt(received: int, _frame: object) -> None:
    _received.append(received)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    raise KeyboardInterrupt


def _watch(reader: socket.socket, _writer: socket.socket) -> None:
    """End the process soon after a signal. The thread's reference to `_writer` keeps that end open."""
    while (number := reader.recv(1)[0]) not in SIGNALS:
        pass
    time.sleep(GRACE)
    os._exit(128 + number)


def main() -> None:
    """Run the command line. Handlers are installed before its imports, which take most of a second."""
    try:
        with suppress(KeyboardInterrupt):
            end_on_signals()
            from promptmii.cli import app

            app()
    finally:
        leave_if_interrupted()


if __name__ == "__main__":
    main()
