"""Handwritten digits: a 784-16-16-10 network with 13,002 parameters learns to classify them.

After "But what is a neural network?" (3Blue1Brown, 2017). ``--data`` or the environment variable PORTABLENN_DATA names a
folder of MNIST's IDX files; without one, it uses scikit-learn's 8×8 digits, scaled up.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

import portablenn as pnn
from portablenn.data import digits


def digit_classifier(activation: str = "relu", seed: int = 0, backend: str = "auto") -> pnn.Network:
    """Build the network; with ``sigmoid`` it is the one of the video, whose outputs are ten independent probabilities."""
    loss = "sigmoid_cross_entropy" if activation == "sigmoid" else "softmax_cross_entropy"
    rate = 3e-3 if activation == "sigmoid" else 1e-3
    return pnn.mlp([784, 16, 16, 10], activation, loss=loss, optimizer=pnn.Adam(rate), seed=seed, backend=backend)


def split(images: np.ndarray, labels: np.ndarray, test_share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Scale pixels to [0, 1] and split the rows at random into X_train, X_test, y_train, y_test."""
    order = np.random.RandomState(seed).permutation(len(labels))
    X, y = images.reshape(len(images), -1)[order].astype(np.float32) / 255, labels[order]
    cut = round(len(y) * (1 - test_share))
    return X[:cut], X[cut:], y[:cut], y[cut:]


def main(
    out: Path = Path(),
    data: Path | None = None,
    epochs: int = 30,
    activation: str = "relu",
    seed: int = 0,
    backend: str = "auto",
) -> float:
    from portablenn import plots
    from portablenn.callbacks import ProgressBar

    folder = data or os.environ.get("PORTABLENN_DATA")
    dataset = digits(folder)
    X_train, X_test, y_train, y_test = split(dataset.images, dataset.labels)
    net = digit_classifier(activation, seed, backend)
    print(f"{dataset.source}: {len(y_train):,} training images, {len(y_test):,} test images")
    print(net.summary())
    print(f"backend: {net.backend.name}, device: {net.backend.device_name}")

    start = time.perf_counter()
    net.fit(X_train, y_train, epochs=epochs, batch_size=32, validation_data=(X_test, y_test), callbacks=[ProgressBar()])
    seconds = time.perf_counter() - start

    predicted = net.predict(X_test)
    accuracy = net.evaluate(X_test, y_test)["accuracy"]
    print(f"trained {epochs} epochs in {seconds:.1f} s on {net.backend}; test accuracy {accuracy:.4f}")
    print("confusion matrix (rows: true digits; columns: predicted digits):")
    matrix = np.zeros((10, 10), dtype=int)
    np.add.at(matrix, (y_test, predicted), 1)
    print("\n".join(f"  {digit}  " + " ".join(f"{n:4}" for n in row) for digit, row in enumerate(matrix)))

    print("Picture:", plots.save(plots.first_layer_weights(net, (28, 28), X=X_test), out / "digits_weights.png"))
    shown = slice(0, 36)
    confidence = net.predict_proba(X_test[shown]).max(axis=1)
    grid = plots.predicted_images(X_test[shown].reshape(-1, 28, 28), predicted[shown], y_test[shown], confidence)
    print("Picture:", plots.save(grid, out / "digits_predicted.png"))
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--activation", choices=["relu", "sigmoid"], default="relu")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the pictures")
    main(**vars(parser.parse_args()))
