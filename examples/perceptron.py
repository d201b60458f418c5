"""A perceptron: one sigmoid neuron without a bias learns to return its first input.

After "How to build a simple neural network in 9 lines of Python code" (Milo Spencer-Harper, 2015): full-batch gradient
descent with learning rate 1 on half the squared error, 10,000 steps.
"""

from pathlib import Path

import numpy as np

import portablenn as pnn

INPUTS = np.array([[0, 0, 1], [1, 1, 1], [1, 0, 1], [0, 1, 1]])
TARGETS = np.array([0, 1, 1, 0])


def perceptron() -> pnn.Network:
    weights = 2 * np.random.RandomState(1).random_sample((3, 1)) - 1  # as in the tutorial
    neuron = pnn.Dense(1, activation="sigmoid", use_bias=False, kernel_init=weights)
    loss = pnn.losses.HalfSquaredError(reduction="sum")
    return pnn.Network([neuron], inputs=3, loss=loss, optimizer=pnn.SGD(1.0), dtype="float64")


def main(out: Path = Path()) -> None:
    net = perceptron()
    print("Random initial weights:", net.parameters["dense_1.kernel"].ravel())

    history = net.fit(INPUTS, TARGETS, epochs=10_000, batch_size=None)

    print("Weights after training:", net.parameters["dense_1.kernel"].ravel())
    print("Prediction for [1, 0, 0]:", net.predict([[1, 0, 0]])[0])

    from portablenn import plots

    ax = history.plot()
    ax.set(yscale="log", title="Training a perceptron")
    print("Picture:", plots.save(ax, out / "perceptron.png"))


if __name__ == "__main__":
    main()
