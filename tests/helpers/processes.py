"""Code in a Python process of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def run_python(code: str, **environment: str) -> str:
    """Return what the code prints, on NumPy unless the environment says otherwise."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=inherited | {"PORTABLENN_BACKEND": "numpy"} | environment,
    )
    return run.stdout.strip()
