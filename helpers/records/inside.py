"""What was found inside a trained model: one linear layer, and one block of quantised weights."""

from __future__ import annotations

from pydantic import BaseModel

from helpers.records.schema import Origin

Matrix = list[list[float]]  # rows of a matrix, or of its upper left corner (at most 64 by 64)


class Layer(BaseModel):
    """One linear layer after training: the frozen weight W, and beside it scale x B A.

    With DoRA a vector of magnitudes is trained too, and W is rescaled; then the change that
    training made to the layer is not the product alone.
    """

    name: str  # of the module: "model.layers.15.self_attn.q_proj"
    rows: int  # of W: outputs
    columns: int  # inputs
    rank: int  # A is rank by columns, B rows by rank
    scale: float  # alpha / rank, as peft has it
    a: Matrix
    b: Matrix
    weight: Matrix  # what was trained beside: of a quantised method the weights expanded again
    product: Matrix  # scale x B A
    change: Matrix  # the merged weight - W
    norm_weight: float  # Frobenius norms of the whole matrices
    norm_product: float
    norm_change: float
    magnitude: list[float] | None  # DoRA's, of the first rows
    trained: int  # numbers trained for this layer
    parameters: int  # numbers of W
    model_trained: int  # numbers trained in all, as the adapter's file holds them
    model_parameters: int  # numbers of the whole base model
    origin: Origin

    @property
    def ratio(self) -> float:
        """How large the change is against the weight that it changes."""
        return self.norm_change / self.norm_weight

    @property
    def share(self) -> float:
        """Numbers trained in all, against those of the whole base model."""
        return self.model_trained / self.model_parameters


class Block(BaseModel):
    """One block of 64 real weights before and after quantisation to 4 bits.

    Errors are in units of the weights; relative ones are the root of the mean square against that
    of the weights.
    """

    name: str  # of the module whose weight begins with the block
    rows: int  # of that weight
    columns: int
    quant_type: str  # nf4 or fp4
    codes: list[float]  # the 16 values that a code can stand for, between -1 and 1
    scale: float  # the largest absolute weight of the block: a code's value is multiplied by it
    before: list[float]
    indices: list[int]  # which code each weight got
    after: list[float]  # codes[index] x scale
    error_max: float  # of the block
    error_rms: float
    error_relative: float
    matrix_error_max: float
    matrix_error_rms: float
    matrix_error_relative: float
    bytes_16: int  # the matrix in 16 bits
    bytes_codes: int  # ... in 4 bits
    bytes_scales: int  # ... and what its scales take besides
    origin: Origin

    @property
    def bytes_4(self) -> int:
        """The matrix in 4 bits, its scales included."""
        return self.bytes_codes + self.bytes_scales

    @property
    def bits_a_weight(self) -> float:
        return 8 * self.bytes_4 / (self.rows * self.columns)
