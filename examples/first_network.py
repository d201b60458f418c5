"""A first network: from a dot product to stochastic gradient descent, and three applications.

After "Python AI: How to Build a Neural Network & Make Predictions" (Real Python, 2021). The applications: linear regression
of house prices, L2 regularization against overfitting, and sentiment of sentences.
"""

from pathlib import Path

import numpy as np

import portablenn as pnn

ROWS = np.array([[3, 1.5], [2, 1.5], [4, 1.5], [3, 4], [3.5, 0.5], [2, 0.5], [5.5, 1], [1, 1]])
TARGETS = np.array([0, 1, 0, 1, 0, 1, 1, 0])


def one_neuron(weights=(1.45, -0.66), bias=0.0) -> pnn.Network:
    neuron = pnn.Dense(1, activation="sigmoid", kernel_init=np.reshape(weights, (2, 1)), bias_init=[bias])
    loss = pnn.losses.SquaredError(reduction="sum")
    return pnn.Network([neuron], inputs=2, loss=loss, optimizer=pnn.SGD(0.1), dtype="float64")


def by_hand() -> None:
    xp = pnn.xp
    inputs, similar, other = (xp.asarray(v) for v in ([1.72, 1.23], [1.26, 0.0], [2.17, 0.32]))
    print("Dot products:", float(xp.vecdot(inputs, similar)), float(xp.vecdot(inputs, other)))

    net = one_neuron()
    for row in ([1.66, 1.56], [2.0, 1.5]):
        print(f"Prediction for {row}: {net.predict([row])[0]:.7f}")
    prediction = xp.asarray(net.predict([[2.0, 1.5]])[0])
    error, derivative = pnn.value_and_grad(lambda p: (p - 0.0) ** 2)(prediction)
    print(f"Squared error for target 0: {float(error):.7f}, its derivative: {float(derivative):.7f}")


def by_training() -> pnn.History:
    """Train for 10,000 steps, each on one row drawn at random; record the error over all rows every 100 steps."""
    net = one_neuron()
    return net.fit(
        ROWS, TARGETS, epochs=100, steps_per_epoch=100, batch_size=1, order="random", validation_data=(ROWS, TARGETS)
    )


def house_prices() -> pnn.Network:
    """Predict the price (1000 €) from area (m²) and age (years) with one linear neuron on standardized columns."""
    area = np.array([52, 60, 75, 80, 93, 100, 115, 120, 138, 150])
    age = np.array([30, 12, 25, 5, 40, 8, 15, 2, 20, 10])
    price = 40 + 3.1 * area - 1.7 * age + np.array([4, -6, 2, 5, -3, -1, 6, -4, 0, -3])
    houses = np.stack([area, age], axis=1)
    mean, spread = houses.mean(axis=0), houses.std(axis=0)
    net = pnn.mlp([2, 1], loss="squared_error", optimizer=pnn.SGD(0.1), dtype="float64")
    net.fit((houses - mean) / spread, price, epochs=300, batch_size=None)
    per_unit = net.parameters["dense_1.kernel"].ravel() / spread
    print(f"Price per square metre: {per_unit[0]:+.2f}, per year of age: {per_unit[1]:+.2f} (thousand €)")
    print(
        f"Predicted price of a house of 110 m², 10 years old: {net.predict(([[110, 10]] - mean) / spread)[0]:.0f} thousand €"
    )
    return net


def overfitting() -> dict[str, float]:
    """Fit twelve noisy points of a sine with and without L2 regularization; return both validation errors."""
    rng = np.random.RandomState(0)
    x = np.linspace(-1, 1, 12)[:, None]
    y = np.sin(3 * x) + 0.3 * rng.standard_normal(x.shape)
    between = np.linspace(-1, 1, 101)[:, None]
    errors = {}
    for name, l2 in {"without L2": 0.0, "with L2": 0.01}.items():
        net = pnn.mlp([1, 64, 64, 1], "relu", optimizer=pnn.Adam(0.01, l2=l2))
        net.fit(x, y, epochs=3_000, batch_size=None)
        errors[name] = net.evaluate(between, np.sin(3 * between))["loss"]
        print(
            f"Network {name:10}: training error {net.evaluate(x, y)['loss']:.4f}, validation error {errors[name]:.4f}"
        )
    return errors


SENTENCES = {
    "what a lovely warm day": 1, "I love this song": 1, "the food was great": 1, "a wonderful happy ending": 1,
    "this is the best book": 1, "great friends and lovely people": 1, "I am happy with it": 1, "best day of my life": 1,
    "what an awful cold day": 0, "I hate this noise": 0, "the food was terrible": 0, "a sad and boring ending": 0,
    "this is the worst book": 0, "terrible service and awful people": 0, "I am sad about it": 0, "worst trip of my life": 0,
}  # fmt: skip


def sentences() -> dict[str, float]:
    """Classify the sentiment of sentences: word counts from scikit-learn, and one layer."""
    from sklearn.feature_extraction.text import CountVectorizer

    counts = CountVectorizer()
    X = counts.fit_transform(SENTENCES).toarray()
    net = pnn.mlp([X.shape[1], 1], loss="sigmoid_cross_entropy", optimizer=pnn.Adam(0.05, l2=0.001))
    net.fit(X, list(SENTENCES.values()), epochs=200, batch_size=None)
    new = ["what a great song", "an awful boring trip", "lovely happy people"]
    positive = dict(zip(new, net.predict_proba(counts.transform(new).toarray())[:, 1].tolist(), strict=True))
    for sentence, probability in positive.items():
        print(f"Probability that {sentence!r} is positive: {probability:.2f}")
    return positive


def main(out: Path = Path()) -> None:
    by_hand()
    history = by_training()
    print(f"Summed squared error over all rows: first {history['val_loss'][0]:.4f}, last {history['val_loss'][-1]:.4f}")
    house_prices()
    overfitting()
    sentences()

    from portablenn import plots

    ax = plots.loss_curves({"loss": history["val_loss"]})
    ax.set(
        xlabel="hundreds of steps", ylabel="summed squared error", title="Stochastic gradient descent, one row per step"
    )
    print("Picture:", plots.save(ax, out / "first_network.png"))


if __name__ == "__main__":
    main()
