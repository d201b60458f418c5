"""A 3-4-1 network learns XOR of its first two inputs, which no single neuron can.

After "A Neural Network in 11 lines of Python" (Andrew Trask, 2015): sigmoid neurons without biases, full-batch gradient
descent with learning rate 1 on half the squared error, 60,000 steps.
"""

from pathlib import Path

import numpy as np

import portablenn as pnn

INPUTS = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
TARGETS = np.array([0, 1, 1, 0])


def three_layers() -> pnn.Network:
    rng = np.random.RandomState(1)
    first, second = (2 * rng.random_sample(shape) - 1 for shape in [(3, 4), (4, 1)])
    layers = [
        pnn.Dense(4, activation="sigmoid", use_bias=False, kernel_init=first),
        pnn.Dense(1, activation="sigmoid", use_bias=False, kernel_init=second),
    ]
    loss = pnn.losses.HalfSquaredError(reduction="sum")
    return pnn.Network(layers, inputs=3, loss=loss, optimizer=pnn.SGD(1.0), dtype="float64")


def main(out: Path = Path()) -> None:
    net = three_layers()
    losses: list[float] = []
    for step in range(0, 60_000, 10_000):
        print(f"Error before step {step:6}: {np.mean(np.abs(TARGETS - net.predict(INPUTS))):.10f}")
        last = step == 50_000  # the tutorial prints the outputs before the last step
        losses += net.fit(INPUTS, TARGETS, epochs=9_999 if last else 10_000, batch_size=None)["loss"]

    print("Outputs after training:")
    print(net.forward(INPUTS))

    from portablenn import plots

    ax = plots.loss_curves({"loss": losses})
    ax.set(yscale="log", xscale="log", xlabel="step", title="A network with one hidden layer learns XOR")
    print("Picture:", plots.save(ax, out / "three_layers.png"))


if __name__ == "__main__":
    main()
