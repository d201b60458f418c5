"""Expected transitions of a hidden Markov model: they are the gradient of its log-likelihood by the log probabilities."""

import numpy as np

import portablenn as pnn


def log_likelihood(transitions, start, emissions):
    """Return it by the forward algorithm; all arguments are logarithms, emissions: (time, states)."""
    xp = pnn.array_namespace(transitions)
    alpha = start + emissions[0]
    for t in range(1, emissions.shape[0]):
        alpha = _log_sum(xp, alpha[:, None] + transitions) + emissions[t]
    return _log_sum(xp, alpha[:, None])[0]


def _log_sum(xp, x):
    largest = xp.max(x, axis=0)
    return largest + xp.log(xp.sum(xp.exp(x - largest), axis=0))


def run(asarray=np.asarray):
    rng = np.random.default_rng(5)
    transitions = np.log(rng.dirichlet([2.0, 1.0, 1.0], 3))
    emissions = np.log(rng.dirichlet(np.ones(3), 20))
    start = np.log(np.full(3, 1 / 3))
    counts = pnn.grad(log_likelihood)(asarray(transitions), asarray(start), asarray(emissions))
    return [[float(counts[i, j]) for j in range(3)] for i in range(3)]


if __name__ == "__main__":
    print("expected numbers of transitions:", run())
