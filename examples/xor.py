"""XOR and the parity of three bits, which one layer cannot learn and a network with a hidden layer can.

The two classes of XOR are not linearly separable (Minsky & Papert 1969).
"""

from itertools import product
from pathlib import Path

import numpy as np

import portablenn as pnn


def parity(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all combinations of some bits, and whether an odd number of them is set; for two bits that is XOR."""
    words = np.array(list(product([0, 1], repeat=bits)))
    return words, words.sum(axis=1) % 2


def trained(sizes: list[int]) -> pnn.Network:
    words, odd = parity(sizes[0])
    net = pnn.mlp(sizes, activation="tanh", loss="sigmoid_cross_entropy", optimizer=pnn.Adam(0.02), seed=1)
    net.fit(words, odd, epochs=3_000, batch_size=None)
    return net


def main(out: Path = Path()) -> None:
    for name, sizes in {
        "XOR, one layer": [2, 1],
        "XOR, one hidden layer": [2, 4, 1],
        "3-bit parity, one layer": [3, 1],
        "3-bit parity, one hidden layer": [3, 8, 1],
    }.items():
        net = trained(sizes)
        words, odd = parity(sizes[0])
        print(f"{name:31} {net.predict(words)}, {net.evaluate(words, odd)['accuracy']:.0%} accuracy")

    from portablenn import plots

    words, odd = parity(2)
    ax = plots.decision_boundary(trained([2, 4, 1]), words, odd)
    ax.set(title="XOR, one hidden layer")
    print("Picture:", plots.save(ax, out / "xor.png"))


if __name__ == "__main__":
    main()
