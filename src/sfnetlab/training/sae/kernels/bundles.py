"""Arrays that kernels take together, in named tuples: Numba compiles these to plain arguments.

Kernels unpack them before their loops: taking a field counts a reference, which costs time where a loop is short.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Halves = NDArray[np.uint16]
"""Numbers in bfloat16, by their bits."""


class Codes(NamedTuple):
    """The active latents of the rows of a batch.

    They lie in slots: those of row r from starts[r] on, counts[r] of them, by ascending column. Slots between the rows'
    mean nothing.
    """

    starts: Longs
    """(n_rows,)"""
    counts: Ints
    """(n_rows,)"""
    columns: Ints
    """(n_slots,): which latent."""
    values: Floats
    """(n_slots,): positive."""
    gradients: Floats
    """(n_slots,): derivative of the loss by the value."""


class CodesByLatent(NamedTuple):
    """The codes of a range of latents, sorted: those of its j-th latent are offsets[j] to offsets[j + 1], by row."""

    offsets: Longs
    """(n_latents + 1,), of which the first as many as the range has latents are used, and one more."""
    rows: Ints
    """(n_slots,)"""
    values: Floats
    """(n_slots,)"""
    gradients: Floats
    """(n_slots,)"""


class Candidates(NamedTuple):
    """Latents that may become active, by row, and by column within a row; as many as there is room for."""

    columns: Ints
    """(room,), or (n_rows, room): which latent."""
    values: Floats
    """The same shape."""


class Bounds(NamedTuple):
    """Bounds on the values of a row's candidates."""

    uppers: Floats
    """(room,)"""
    lowers: Floats
    """(room,)"""


class Product(NamedTuple):
    """z W_enc^T of a chunk of rows z."""

    pre: Floats
    """(n_rows, n_latents)"""
    b_enc: Floats
    """(n_latents,), not added yet."""


class RoughProduct(NamedTuple):
    """z W_enc^T of a chunk of rows z in bfloat16, and what bounds and exact values need (selection.py)."""

    pre: Halves
    """(n_rows, n_latents)"""
    b_enc: Floats
    """(n_latents,), not added yet."""
    slack: np.float32
    """What the bounds need for adding b_enc."""
    norms: Floats
    """(n_latents,): lengths of the encoder's rows, or a little more."""
    row_errors: Floats
    """(n_rows,): how far off a value before the last rounding may be, in units of the length of its encoder row."""
    z: Floats
    """(n_rows, d_in)"""
    W_enc: Floats
    """(n_latents, d_in)"""


class RoughRow(NamedTuple):
    """One row of a `RoughProduct`."""

    pre: Halves
    """(n_latents,)"""
    b_enc: Floats
    slack: np.float32
    norms: Floats
    error: np.float32


class RoundedEncoder(NamedTuple):
    """An encoder in bfloat16."""

    W_enc: Halves
    """(n_latents, d_in)"""
    norms: Floats
    """(n_latents,): lengths of the rows in float32, or a little more."""
    shares: Floats
    """(n_latents,): length of what rounding changed of a row, over the row's length."""


class Encoder(NamedTuple):
    """What a step reads and changes of the encoder; the names are those of state.py."""

    W_enc: Floats
    """(n_latents, d_in)"""
    W_enc_means: Floats
    """(n_latents, d_in)"""
    W_enc_squares: Floats
    """(n_latents,)"""
    b_enc: Floats
    """(n_latents,)"""
    b_enc_means: Floats
    """(n_latents,)"""
    b_enc_squares: Floats
    """(n_latents,)"""
    column_speeds: Floats
    """(d_in,)"""


class Decoder(NamedTuple):
    """What a step reads and changes of the decoder."""

    W_dec: Floats
    """(n_latents, d_in)"""
    W_dec_squares: Floats
    """(n_latents,)"""
    b_dec: Floats
    """(d_in,)"""
    prefixes: Longs
    """(n_prefixes,): sizes of the nested dictionaries."""


class Activity(NamedTuple):
    """When latents were active."""

    last_active: Longs
    """(n_latents,): number of the last step in which each was."""
    n_active: Ints
    """(n_latents,): on how many rows each was in the last step."""


class Batch(NamedTuple):
    """The rows of a step, and what their reconstructions leave."""

    z: Floats
    """(n_rows, d_in)"""
    errors: Floats
    """(n_rows * n_prefixes, d_in): in row r * n_prefixes + g, the sum of z_hat_p - z over dictionaries p >= g."""
    scale: np.float32
    """Derivative of the loss by an error, over that error: 2 / (n_prefixes n_rows d_in)."""


class StepOptions(NamedTuple):
    """What one step is told beside its arrays."""

    number: int
    """Number of the step, from 0."""
    learning_rate: np.float32
    trains_encoder: bool
    trains_decoder: bool
    rounds_encoder: bool
    """Whether `RoundedEncoder` shall follow the encoder."""
