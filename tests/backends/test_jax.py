"""JAX, with its plug-in or without."""

from __future__ import annotations

import pytest
from processes import run_python


def test_jax_without_64_bits_trains_without_a_warning() -> None:
    pytest.importorskip("jax")
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import numpy as np, jax.numpy as jnp, portablenn as pnn\n"
        "for net, x in ((pnn.mlp([2, 4, 2], loss='softmax_cross_entropy'), jnp.ones((20, 2))),\n"
        "               (pnn.mlp([2, 4, 2], loss='softmax_cross_entropy', backend='jax'), np.ones((20, 2)))):\n"
        "    y = (jnp if x.dtype == 'float32' else np).arange(20) % 2\n"
        "    net.fit(x, y, epochs=2, validation_split=0.25, class_weight='balanced')\n"
        "    print(net.predict(x).shape, net.predict_proba(x).shape, len(net.evaluate(x, y)))\n"
    )
    assert run_python(code, JAX_ENABLE_X64="0", JAX_PLATFORMS="cpu").splitlines() == ["(20,) (20, 2) 2"] * 2
