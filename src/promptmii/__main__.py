"""The program: `promptmii`, or `python -m promptmii`."""

from contextlib import suppress

from promptmii.interrupt import end_on_signals, leave_if_interrupted


def main() -> None:
    """Run the command line. Signals are handled before its imports, which take most of a second."""
    end_on_signals()
    try:
        with suppress(KeyboardInterrupt):
            from promptmii.cli import app

            app()
    finally:
        leave_if_interrupted()


if __name__ == "__main__":
    main()
