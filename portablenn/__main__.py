"""``portablenn`` and ``python -m portablenn``: run the command line, or say what to install for it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an error becomes one line on standard error and exit status 1."""
    try:
        _run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _run() -> None:
    try:
        from .cli import app
    except ImportError as error:
        print(f'portablenn: {error}. The command line needs: pip install "portablenn[cli]"', file=sys.stderr)
        raise SystemExit(1) from None
    try:
        app()
    except (ImportError, OSError, ValueError, TypeError, RuntimeError) as error:
        print(f"portablenn: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
