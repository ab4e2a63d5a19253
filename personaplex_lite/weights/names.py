"""The one rename table: where each tensor of an official file lives in our model.

We stack what the official code keeps apart (16 embedding tables, one weight for each depth step), so several
official tensors fill parts of one of ours. The table is a bijection all the same: every official tensor has
exactly one place, and every place exactly one tensor.
"""
from __future__ import annotations

from collections import Counter
from math import prod
from typing import NamedTuple

from torch import Tensor, nn

from ..model.config import LMConfig, MimiConfig, TransformerConfig


class Place(NamedTuple):
    """Where an official tensor lives: a parameter or buffer of ours, which part of it; its official shape."""
    name: str
    part: int | None
    shape: tuple[int, ...]

    def of(self, tensors: dict[str, Tensor]) -> Tensor:
        """The tensor, seen in its official shape (a view: writing to it fills the model)."""
        whole = tensors[self.name]
        if self.part is not None:
            whole = whole[self.part]
        return whole.view(self.shape)


class Table(NamedTuple):
    """Official name -> place, filled line by line. `theirs`, `ours`: how the names of its lines begin."""
    places: dict[str, Place]
    theirs: str = ""
    ours: str = ""

    def under(self, theirs: str, ours: str) -> Table:
        """The same table, for lines whose names begin like this."""
        return Table(self.places, self.theirs + theirs, self.ours + ours)

    def add(self, theirs: str, ours: str, *shape: int, part: int | None = None) -> None:
        self.places[self.theirs + theirs] = Place(self.ours + ours, part, shape)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by our name, outside of autograd."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach() for name, tensor in named}


def lm_names(config: LMConfig) -> dict[str, Place]:
    """Official tensor name -> place, for a language model of these sizes."""
    table = Table({})
    _lm_ends(table, config)
    for number in range(config.temporal.layers):
        layer = table.under(f"transformer.layers.{number}.", f"temporal.layers.{number}.")
        _temporal_layer(layer, config.temporal)
    for number in range(config.depth.layers):
        layer = table.under(f"depformer.layers.{number}.", f"depth.layers.{number}.")
        _depth_layer(layer, config.depth, config.depth_steps)
    return table.places


def _lm_ends(table: Table, config: LMConfig) -> None:
    """What stands before and after the two transformers: embeddings and heads."""
    wide = config.temporal.dim
    deep = config.depth.dim
    words = config.text_vocab + 1        # one more than can be said: the initial token
    sounds = config.audio_vocab + 1
    table.add("text_emb.weight", "text_embed", words, wide)
    table.add("text_linear.weight", "text_head.weight", config.text_vocab, wide)
    table.add("out_norm.alpha", "out_norm.alpha", 1, 1, wide)
    table.add("depformer_text_emb.weight", "depth.text_embed", words, deep)
    for row in range(config.rows - 1):
        table.add(f"emb.{row}.weight", "audio_embed", sounds, wide, part=row)
    for step in range(config.depth_steps):
        table.add(f"depformer_in.{step}.weight", "depth.inputs.weight", deep, wide, part=step)
        table.add(f"linears.{step}.weight", "depth.heads.weight", config.audio_vocab, deep, part=step)
        # nobody reads what the last step says
        if step < config.depth_steps - 1:
            table.add(f"depformer_emb.{step}.weight", "depth.audio_embed", sounds, deep, part=step)


def _temporal_layer(layer: Table, config: TransformerConfig) -> None:
    dim = config.dim
    hidden = config.hidden
    _attention(layer, dim)
    _norms(layer, dim)
    layer.add("gating.linear_in.weight", "mlp.linear_in.weight", 2 * hidden, dim)
    layer.add("gating.linear_out.weight", "mlp.linear_out.weight", dim, hidden)


def _depth_layer(layer: Table, config: TransformerConfig, steps: int) -> None:
    dim = config.dim
    hidden = config.hidden
    _norms(layer, dim)
    # attention of all steps lies in one tensor, gating in one for each step
    layer.add("self_attn.in_proj_weight", "in_proj.weight", steps * 3 * dim, dim)
    layer.add("self_attn.out_proj.weight", "out_proj.weight", steps * dim, dim)
    for step in range(steps):
        gate = layer.under(f"gating.{step}.", "")
        gate.add("linear_in.weight", "linear_in.weight", 2 * hidden, dim, part=step)
        gate.add("linear_out.weight", "linear_out.weight", dim, hidden, part=step)


def _attention(layer: Table, dim: int) -> None:
    layer.add("self_attn.in_proj_weight", "attn.in_proj.weight", 3 * dim, dim)
    layer.add("self_attn.out_proj.weight", "attn.out_proj.weight", dim, dim)


def _norms(layer: Table, dim: int) -> None:
    layer.add("norm1.alpha", "norm1.alpha", 1, 1, dim)
    layer.add("norm2.alpha", "norm2.alpha", 1, 1, dim)


def mimi_names(config: MimiConfig) -> dict[str, Place]:
    """Official tensor name -> place, for a codec of these sizes."""
    table = Table({})
    dim = config.dim
    _encoder(table.under("encoder.model.", "encoder."), config)
    _decoder(table.under("decoder.model.", "decoder."), config)
    table.add("downsample.conv.conv.conv.weight", "downsample.weight", dim, dim, 4)
    table.add("upsample.convtr.convtr.convtr.weight", "upsample.weight", dim, 1, 4)
    for side in ("encoder_transformer.", "decoder_transformer."):
        for number in range(config.transformer.layers):
            layer = table.under(f"{side}transformer.layers.{number}.", f"{side}layers.{number}.")
            _mimi_layer(layer, config.transformer)
    _rvq(table.under("quantizer.rvq_first.", "rvq.semantic."), 1, config)
    _rvq(table.under("quantizer.rvq_rest.", "rvq.acoustic."), config.codebooks_stored - 1, config)
    return table.places


def _encoder(table: Table, config: MimiConfig) -> None:
    """The convolutions on the way in. The official list counts activations too: three entries a stage."""
    width = config.filters
    _conv(table, "0.conv.conv.", "first.", width, 1, config.kernel)
    theirs = 1
    ours = 0
    for ratio in reversed(config.ratios):
        # a residual block, an activation, a convolution that goes to fewer and wider frames
        _block(table.under(f"{theirs}.", f"stages.{ours}."), width, config)
        _conv(table, f"{theirs + 2}.conv.conv.", f"stages.{ours + 1}.", 2 * width, width, 2 * ratio)
        width *= 2
        theirs += 3
        ours += 2
    _conv(table, f"{theirs + 1}.conv.conv.", "last.", config.dim, width, config.last_kernel)


def _decoder(table: Table, config: MimiConfig) -> None:
    """The convolutions on the way out: the encoder's, mirrored."""
    width = config.filters * 2 ** len(config.ratios)
    _conv(table, "0.conv.conv.", "first.", width, config.dim, config.kernel)
    theirs = 2
    ours = 0
    for ratio in config.ratios:
        # a transposed convolution [in, out, kernel] to more and narrower frames, a residual block
        up = table.under(f"{theirs}.convtr.convtr.", f"stages.{ours}.")
        up.add("weight", "weight", width, width // 2, 2 * ratio)
        up.add("bias", "bias", width // 2)
        width //= 2
        _block(table.under(f"{theirs + 1}.", f"stages.{ours + 1}."), width, config)
        theirs += 3
        ours += 2
    _conv(table, f"{theirs}.conv.conv.", "last.", 1, width, config.last_kernel)


def _conv(table: Table, theirs: str, ours: str, outputs: int, inputs: int, kernel: int) -> None:
    conv = table.under(theirs, ours)
    conv.add("weight", "weight", outputs, inputs, kernel)
    conv.add("bias", "bias", outputs)


def _block(block: Table, width: int, config: MimiConfig) -> None:
    inner = width // config.compress
    _conv(block, "block.1.conv.conv.", "conv1.", inner, width, config.residual_kernel)
    _conv(block, "block.3.conv.conv.", "conv2.", width, inner, 1)


def _mimi_layer(layer: Table, config: TransformerConfig) -> None:
    dim = config.dim
    _attention(layer, dim)
    layer.add("linear1.weight", "mlp.linear1.weight", config.hidden, dim)
    layer.add("linear2.weight", "mlp.linear2.weight", dim, config.hidden)
    # once for attention, once for the MLP
    for half in ("1", "2"):
        layer.add(f"layer_scale_{half}.scale", f"scale{half}", dim)
        layer.add(f"norm{half}.weight", f"norm{half}.weight", dim)
        layer.add(f"norm{half}.bias", f"norm{half}.bias", dim)


def _rvq(table: Table, books: int, config: MimiConfig) -> None:
    inner = config.codebook_dim
    table.add("input_proj.weight", "input_proj.weight", inner, config.dim, 1)
    table.add("output_proj.weight", "output_proj.weight", config.dim, inner, 1)
    for number in range(books):
        book = table.under(f"vq.layers.{number}._codebook.", f"codebooks.{number}.")
        book.add("_initialized", "initialized", 1)
        book.add("cluster_usage", "cluster_usage", config.bins)
        book.add("embedding_sum", "embedding_sum", config.bins, inner)


def check_bijection(model: nn.Module, table: dict[str, Place]) -> None:
    """Every element of the model has exactly one official home. Raises AssertionError otherwise."""
    filled: Counter[str] = Counter()
    for place in table.values():
        filled[place.name] += prod(place.shape)
    there = {name: tensor.numel() for name, tensor in tensors_of(model).items()}
    assert filled == there, "rename table and model disagree"
