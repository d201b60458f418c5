"""The threshold neuron of McCulloch and Pitts (1943), and Rosenblatt's learning rule (1958), which finds its weights.

A threshold neuron returns 1 when the weighted sum of its inputs plus its bias is not negative. With weights set by hand it
computes AND, OR or NOT. Rosenblatt's rule finds such weights if the two classes are linearly separable.
"""

from pathlib import Path

import numpy as np

import portablenn as pnn

PAIRS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def threshold_neuron(weights: list[float], bias: float) -> pnn.Network:
    neuron = pnn.Dense(1, activation="step", kernel_init=np.reshape(weights, (-1, 1)), bias_init=[bias])
    return pnn.Network([neuron], inputs=len(weights))


def rosenblatt() -> pnn.Network:
    neuron = pnn.Dense(1, kernel_init="zeros")
    return pnn.Network([neuron], inputs=2, loss="perceptron", optimizer=pnn.SGD(1.0))


def main(out: Path = Path()) -> None:
    print("Weights set by hand:")
    print("  AND", threshold_neuron([1, 1], -1.5).predict(PAIRS))
    print("  OR ", threshold_neuron([1, 1], -0.5).predict(PAIRS))
    print("  NOT", threshold_neuron([-1], 0.5).predict([[0], [1]]))

    print("Weights found by Rosenblatt's rule:")
    for name, targets in {"AND": [0, 0, 0, 1], "OR": [0, 1, 1, 1]}.items():
        net = rosenblatt()
        net.fit(PAIRS, targets, epochs=20, batch_size=1)
        weights, bias = net.parameters["dense_1.kernel"].ravel(), net.parameters["dense_1.bias"]
        print(f"  {name:3} {net.predict(PAIRS)} with weights {weights} and bias {bias}")

    from portablenn import plots

    ax = plots.decision_boundary(net, PAIRS, [0, 1, 1, 1])
    ax.set(title="OR, learned by Rosenblatt's rule")
    print("Picture:", plots.save(ax, out / "threshold_neuron.png"))


if __name__ == "__main__":
    main()
