"""The program: `promptmii`, or `python -m promptmii`."""

import sys

from promptmii.interrupt import end_on_signals, exit_code


def main() -> None:
    """Run the command line. Signals are handled before its imports, which take most of a second."""
    end_on_signals()
    try:
        from promptmii.cli import app

        app()
    except KeyboardInterrupt as interrupt:
        sys.exit(exit_code(interrupt))


if __name__ == "__main__":
    main()
