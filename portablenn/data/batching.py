"""Batching: the chunks of an epoch, on the backend, whatever the rows come from."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from ..runtime.arrays import array_namespace, is_array
from ..runtime.backend import Backend
from .blocks import block_chunks, read_block, stream_chunks
from .chunks import Chunk, Orders, Samples, slices
from .dataset import Dataset
from .sources import BatchStream, Blocks, slice_rows

SOURCE_SIZE = 1 << 23
"""Elements, approximately, that are taken from a `Source` at a time; at least one batch."""


def chunks_of_epochs(orders: Orders, data: Dataset, first: int, epochs: int) -> Iterator[Chunk]:
    """Return all steps of several epochs of rows in memory: one chunk, or two per epoch if the last batch is smaller."""
    batching = orders.batching
    if batching.full_batch:
        yield Chunk(data.samples, epochs)
        return
    size = batching.batch_size
    order = orders(first, epochs)
    full, rest = divmod(batching.epoch_rows, size)
    xp, members = array_namespace(order), tuple(order.shape[:-2])

    def steps(rows: Any, count: int, size: int) -> Any:
        batches = xp.reshape(rows, (*members, count, size))
        return np.ascontiguousarray(batches) if isinstance(batches, np.ndarray) else batches

    if rest == 0:
        yield Chunk(data.samples, epochs * full, steps(order, epochs * full, size))
        return
    for one in (order[..., i, :] for i in range(epochs)):
        yield Chunk(data.samples, full, steps(one[..., : full * size], full, size))
        yield Chunk(data.samples, 1, steps(one[..., full * size :], 1, rest))


def chunks_of_epoch(
    orders: Orders, backend: Backend, data: Dataset, epoch: int, start: int
) -> Generator[tuple[Chunk, bool], None, None]:
    """Return the chunks of one epoch from step ``start`` on, and whether each is the last."""
    batching = orders.batching
    if data.validate is None:
        return _mark_last(_row_chunks(orders, backend, data, epoch, start))
    if isinstance(data.x, BatchStream):
        return _prefetched(backend, stream_chunks(batching, data.x, data.validate, epoch, start))
    return _prefetched(backend, block_chunks(batching, orders.key, data.x, data.validate, epoch, start))


def _row_chunks(orders: Orders, backend: Backend, data: Dataset, epoch: int, start: int) -> Iterator[Chunk]:
    """Return the chunks of rows that can be taken in any order."""
    batching = orders.batching
    if batching.full_batch:
        if is_array(data.x):
            yield Chunk(data.samples, 1)
        else:
            everything = np.arange(batching.count)[None, :]
            yield from (c._replace(order=None, row_numbers=None) for c in _source_chunks(backend, data, everything))
        return
    make, size = orders if is_array(data.x) else orders.on_host, batching.batch_size
    order = make(epoch, 1)[0, ...]
    full = batching.epoch_rows // size  # steps of whole batches: a smaller last one has another shape
    assert batching.steps_per_epoch is not None
    for part in batching.slices(batching.steps_per_epoch, start):
        for first, stop in ((part.start, min(part.stop, full)), (max(part.start, full), part.stop)):
            if first < stop:
                rows = array_namespace(order).reshape(
                    order[first * size : min(stop * size, batching.epoch_rows)], (stop - first, -1)
                )
                if is_array(data.x):
                    yield Chunk(data.samples, stop - first, rows, rows)
                else:
                    yield from _source_chunks(backend, data, rows)


def _source_chunks(backend: Backend, data: Dataset, order: np.ndarray) -> Iterator[Chunk]:
    """Take the rows of some steps from a source, a bounded number at a time."""
    steps = max(1, SOURCE_SIZE // max(1, order.shape[1] * data.columns))
    for part in slices(len(order), steps):
        rows = order[part]
        index = backend.indices(rows.reshape(-1))
        y, weights = (None if a is None else backend.xp.take(a, index, axis=0) for a in (data.y, data.weights))
        samples = Samples(backend.asarray(data.x.take(rows.reshape(-1))), y, weights)
        yield Chunk(samples, len(rows), np.arange(rows.size).reshape(rows.shape), rows)


def _prefetched(backend: Backend, chunks: Iterator[Chunk]) -> Generator[tuple[Chunk, bool], None, None]:
    """Read and validate chunks in another thread, and send each to the device while the one before it is computed on."""
    from .prefetch import prefetch  # threads and queues take long to import

    sent: tuple[Samples | None, Samples | None] = (None, None)
    waiting: tuple[Chunk, bool, Samples] | None = None
    with contextlib.closing(prefetch(_mark_last(chunks))) as read:
        for chunk, is_last in read:
            if chunk.samples is not sent[0]:  # several chunks may take rows of one group of blocks
                sent = chunk.samples, chunk.samples.map(backend.send)
            if waiting is not None:
                yield _receive(*waiting)
            assert sent[1] is not None
            waiting = chunk, is_last, sent[1]
        if waiting is not None:
            yield _receive(*waiting)


def _receive(chunk: Chunk, is_last: bool, sent: Samples) -> tuple[Chunk, bool]:
    return chunk._replace(samples=sent.map(lambda receive: receive())), is_last


def _mark_last(chunks: Iterator[Chunk]) -> Generator[tuple[Chunk, bool], None, None]:
    """Return each chunk, and whether it is the last."""
    before: Chunk | None = None
    for chunk in chunks:
        if before is not None:
            yield before, False
        before = chunk
    if before is not None:
        yield before, True


def row_slices(backend: Backend, data: Dataset, size: int) -> Iterator[Samples]:
    """Return all rows on the backend, at most ``size`` at a time."""
    if data.validate is None:
        for rows in slices(data.rows, size):
            weights = None if data.weights is None else data.weights[rows]
            yield Samples(backend.asarray(slice_rows(data.x, rows)), data.y[rows, ...], weights)
        return
    if isinstance(data.x, Blocks):
        parts = (read_block(data.x, b) for b, count in enumerate(data.x.sizes) if count)
    else:
        parts = data.x.epoch(0)
    for samples in (data.validate(*part).samples for part in parts if len(part[0])):
        for rows in slices(len(samples.x), size):
            yield samples.rows(rows).map(backend.asarray)


def count_slices(data: Dataset, size: int) -> int:
    """Return the number of parts that `row_slices` makes; 1 if the rows are in memory as a whole."""
    sizes = data.x.sizes if isinstance(data.x, Blocks) else () if is_array(data.x) else data.x.shape[:1]
    return sum(-(-count // size) for count in sizes) or 1
