"""`zoo` and `python -m zoo`."""

import sys


def main() -> None:
    """Console entry point; Ctrl-C while it imports is no traceback either."""
    try:
        from zoo.cli import main
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        sys.exit(130)
    main()


if __name__ == "__main__":
    main()
