"""The chunks of an epoch of blocks or of a stream of batches, of which only some are in memory at a time."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import random
from ..runtime.arrays import array_namespace
from .chunks import Batching, Chunk, Samples, shapes_of
from .sources import BatchStream, Block, Blocks

GROUP_SIZE = 1 << 22
"""Elements, approximately, of the blocks whose rows are shuffled together."""

STREAM_SIZE = 1 << 23
"""Elements, approximately, of the batches of a stream that are trained on in one chunk."""

STREAM_SECONDS = 1.0
"""Seconds after which batches that arrive slowly are trained on: Ctrl-C and time limits are checked between chunks."""


class Validated(NamedTuple):
    """A block or batch that a network accepts, and whether it has rows of several labels."""

    samples: Samples
    multilabel: bool


Validate = Callable[..., Validated]
"""Takes the parts of a `Block`."""


def read_block(blocks: Blocks, number: int) -> Block:
    """Read a block; raise `ValueError` unless it has as many rows as announced."""
    block = blocks.read(number)
    if len(block[0]) != blocks.sizes[number]:
        raise ValueError(f"expected {blocks.sizes[number]} rows in block {number}, got {len(block[0])}")
    return block


def shuffle_groups(batching: Batching, key: np.ndarray, blocks: Blocks, epoch: int) -> list[list[int]]:
    """Return the block numbers of an epoch in order, grouped by what is shuffled together."""
    count = len(blocks.sizes)
    order = random.permutations(key, epoch, 1, count)[0] if batching.order == "shuffle" else np.arange(count)
    groups: list[list[int]] = [[]]
    rows, enough = 0, max(batching.batch_size, GROUP_SIZE // blocks.columns)
    for block in order.tolist():
        if not blocks.sizes[block]:
            continue
        if rows >= enough:
            groups.append([])
            rows = 0
        groups[-1].append(block)
        rows += blocks.sizes[block]
    return groups


def block_chunks(
    batching: Batching, key: np.ndarray, blocks: Blocks, validate: Validate, epoch: int, start: int
) -> Iterator[Chunk]:
    """Return the chunks of an epoch of blocks from step ``start`` on.

    Groups of blocks are shuffled as a whole. Batches are consecutive rows of one order, so that an epoch can start at any of
    them; rows that do not fill a batch go before those of the next group. The arrays of all chunks are padded to one shape
    with rows that no step reads, because a compiled step is for one shape.
    """
    group_key = random.fold_in(key, 1 + epoch)
    groups = shuffle_groups(batching, key, blocks, epoch)
    sizes = [sum(blocks.sizes[b] for b in group) for group in groups]
    capacity = max(sizes) + batching.batch_size
    skipped, seen = start * batching.batch_size, 0
    leftover: Validated | None = None
    for number, (group, rows) in enumerate(zip(groups, sizes)):
        seen += rows
        if seen <= skipped:
            continue
        shuffled = batching.order == "shuffle"
        order = random.permutations(group_key, number, 1, rows)[0] if shuffled else np.arange(rows)
        parts = [validate(*read_block(blocks, b)) for b in group]
        if leftover is not None:
            count = len(leftover.samples.x)
            order = np.concatenate([np.arange(count), order + count])
            parts.insert(0, leftover)
        else:
            order = order[max(0, skipped - (seen - rows)) :]
        samples = Samples(*(_concatenate(arrays, capacity) for arrays in zip(*(part.samples for part in parts))))
        multilabel = any(part.multilabel for part in parts)
        used = len(order) // batching.batch_size * batching.batch_size
        yield from _chunks_of_group(
            batching, samples, order[:used], (seen - len(order)) // batching.batch_size, multilabel
        )
        rest = order[used:]
        leftover = Validated(samples.rows(rest), multilabel) if len(rest) else None
    if leftover is not None:
        yield Chunk(leftover.samples, 1, multilabel=leftover.multilabel)


def _chunks_of_group(
    batching: Batching, samples: Samples, order: np.ndarray, first_step: int, multilabel: bool
) -> Iterator[Chunk]:
    """Divide whole batches into chunks whose orders have one shape, padded with steps that do not run."""
    longest = min(batching.steps_per_chunk, -(-len(samples.x) // batching.batch_size))
    batches = order.reshape(-1, batching.batch_size)
    for part in batching.slices(first_step + len(batches), first_step):
        padded = np.zeros((longest, batching.batch_size), dtype=np.int64)
        padded[: part.stop - part.start] = batches[part.start - first_step : part.stop - first_step]
        yield Chunk(samples, part.stop - part.start, padded, multilabel=multilabel)


def _concatenate(arrays: Sequence[Any], capacity: int) -> np.ndarray | None:
    """Concatenate arrays along rows and pad them with zeros to ``capacity`` rows."""
    if all(array is None for array in arrays):
        return None
    if any(array is None for array in arrays):
        raise ValueError("some blocks have weights and others do not: give all of them weights, such as ones")
    padded = np.zeros((capacity, *arrays[0].shape[1:]), dtype=np.result_type(*arrays))
    start = 0
    for array in arrays:
        padded[start : start + len(array)] = array
        start += len(array)
    return padded


def stream_chunks(
    batching: Batching, stream: BatchStream, validate: Validate, epoch: int, start: int
) -> Iterator[Chunk]:
    """Return the chunks of an epoch of a stream from step ``start`` on: consecutive batches of one shape run together."""
    waiting: list[Validated] = []
    step, since = start, time.monotonic()
    for batch in itertools.islice(stream.epoch(epoch), start, batching.max_batches):
        validated = validate(*batch)
        if waiting and shapes_of(validated.samples) != shapes_of(waiting[0].samples):
            yield _chunk_of_batches(waiting)
            waiting.clear()
        since = since if waiting else time.monotonic()
        waiting.append(validated)
        step += 1
        shape = validated.samples.x.shape
        full = len(waiting) * math.prod(shape) >= STREAM_SIZE or len(waiting) * shape[0] >= batching.max_steps
        late = time.monotonic() - since > STREAM_SECONDS
        if full or late or any(step % every == 0 for every in batching.pauses):
            yield _chunk_of_batches(waiting)
            waiting.clear()
    if waiting:
        yield _chunk_of_batches(waiting)


def _chunk_of_batches(batches: Sequence[Validated]) -> Chunk:
    """Return a chunk of batches of one shape.

    Even a single step takes its rows by an order: the same program as for many steps, and therefore the same bits.
    """
    rows = len(batches[0].samples.x)
    columns = zip(*(batch.samples for batch in batches))
    samples = Samples(*(None if a[0] is None else array_namespace(a[0]).concat(a, axis=0) for a in columns))
    order = np.arange(rows * len(batches)).reshape(len(batches), rows)
    return Chunk(samples, len(batches), order, multilabel=any(batch.multilabel for batch in batches))
