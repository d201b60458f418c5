"""What ``import cupy`` finds in a rehearsal of benchmarks/on_gpu.sh: the stand-in. No GPU is involved."""

import fake_cupy

fake_cupy.install()
