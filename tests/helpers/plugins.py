"""A third party's plug-in, and how it is installed for a test."""

from __future__ import annotations

import os
from pathlib import Path

THIRD_PARTY = '''
"""A third party's plug-in, for array-api-strict: it counts what it compiles."""

from portablenn.runtime.backend import Backend

compiled = []


class CountingBackend(Backend):
    def compile(self, program):
        compiled.append(program.name)
        return super().compile(program)

    def devices(self):
        return ["CPU_DEVICE", "device1", "device2"]
'''


def installed(folder: Path, module: str, entry: str, library: str = "array_api_strict") -> dict[str, str]:
    """A distribution in ``folder``, as pip would leave it; the environment in which it is installed."""
    (folder / "third_party.py").write_text(module)
    info = folder / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[portablenn.backends]\n{library} = {entry}\n")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
