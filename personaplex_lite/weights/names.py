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

from ..model.config import LMConfig, MimiConfig


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


class Table(dict[str, Place]):
    """Official name -> place, filled line by line."""

    def add(self, theirs: str, ours: str, shape: tuple[int, ...], part: int | None = None) -> None:
        self[theirs] = Place(ours, part, shape)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by our name, outside of autograd."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach() for name, tensor in named}


def lm_names(config: LMConfig) -> dict[str, Place]:
    """Official tensor name -> place, for a language model of these sizes."""
    table = Table()
    _lm_ends(table, config)
    for number in range(config.temporal.layers):
        _temporal_layer(table, number, config)
    for number in range(config.depth.layers):
        _depth_layer(table, number, config)
    return table


def _lm_ends(table: Table, config: LMConfig) -> None:
    """What stands before and after the two transformers: embeddings and heads."""
    wide = config.temporal.dim
    deep = config.depth.dim
    words = config.text_vocab + 1        # one more than can be said: the initial token
    sounds = config.audio_vocab + 1
    table.add("text_emb.weight", "text_embed", (words, wide))
    table.add("text_linear.weight", "text_head.weight", (config.text_vocab, wide))
    table.add("out_norm.alpha", "out_norm.alpha", (1, 1, wide))
    table.add("depformer_text_emb.weight", "depth.text_embed", (words, deep))
    for row in range(config.rows - 1):
        table.add(f"emb.{row}.weight", "audio_embed", (sounds, wide), row)
    for step in range(config.depth_steps):
        table.add(f"depformer_in.{step}.weight", "depth.inputs.weight", (deep, wide), step)
        table.add(f"linears.{step}.weight", "depth.heads.weight", (config.audio_vocab, deep), step)
        # nobody reads what the last step says
        if step < config.depth_steps - 1:
            table.add(f"depformer_emb.{step}.weight", "depth.audio_embed", (sounds, deep), step)


def _temporal_layer(table: Table, number: int, config: LMConfig) -> None:
    theirs = f"transformer.layers.{number}."
    ours = f"temporal.layers.{number}."
    dim = config.temporal.dim
    hidden = config.temporal.hidden
    _attention(table, theirs, ours, dim)
    _norms(table, theirs, ours, dim)
    table.add(theirs + "gating.linear_in.weight", ours + "mlp.linear_in.weight", (2 * hidden, dim))
    table.add(theirs + "gating.linear_out.weight", ours + "mlp.linear_out.weight", (dim, hidden))


def _depth_layer(table: Table, number: int, config: LMConfig) -> None:
    theirs = f"depformer.layers.{number}."
    ours = f"depth.layers.{number}."
    dim = config.depth.dim
    hidden = config.depth.hidden
    steps = config.depth_steps
    _norms(table, theirs, ours, dim)
    # attention of all steps lies in one tensor, gating in one for each step
    table.add(theirs + "self_attn.in_proj_weight", ours + "in_proj.weight", (steps * 3 * dim, dim))
    table.add(theirs + "self_attn.out_proj.weight", ours + "out_proj.weight", (steps * dim, dim))
    for step in range(steps):
        gate = f"{theirs}gating.{step}."
        table.add(gate + "linear_in.weight", ours + "linear_in.weight", (2 * hidden, dim), step)
        table.add(gate + "linear_out.weight", ours + "linear_out.weight", (dim, hidden), step)


def _attention(table: Table, theirs: str, ours: str, dim: int) -> None:
    table.add(theirs + "self_attn.in_proj_weight", ours + "attn.in_proj.weight", (3 * dim, dim))
    table.add(theirs + "self_attn.out_proj.weight", ours + "attn.out_proj.weight", (dim, dim))


def _norms(table: Table, theirs: str, ours: str, dim: int) -> None:
    for norm in ("norm1.alpha", "norm2.alpha"):
        table.add(theirs + norm, ours + norm, (1, 1, dim))


def mimi_names(config: MimiConfig) -> dict[str, Place]:
    """Official tensor name -> place, for a codec of these sizes."""
    table = Table()
    _encoder(table, config)
    _decoder(table, config)
    dim = config.dim
    table.add("downsample.conv.conv.conv.weight", "downsample.weight", (dim, dim, 4))
    table.add("upsample.convtr.convtr.convtr.weight", "upsample.weight", (dim, 1, 4))
    for side in ("encoder_transformer", "decoder_transformer"):
        for number in range(config.transformer.layers):
            theirs = f"{side}.transformer.layers.{number}."
            _mimi_layer(table, theirs, f"{side}.layers.{number}.", config)
    _rvq(table, "quantizer.rvq_first.", "rvq.semantic.", 1, config)
    _rvq(table, "quantizer.rvq_rest.", "rvq.acoustic.", config.codebooks_stored - 1, config)
    return table


def _encoder(table: Table, config: MimiConfig) -> None:
    """The convolutions on the way in. The official list counts activations too: three entries a stage."""
    width = config.filters
    _conv(table, "encoder.model.0.conv.conv", "encoder.first", (width, 1, config.kernel))
    theirs = 1
    for stage, ratio in enumerate(reversed(config.ratios)):
        # a residual block, an activation, a convolution that goes to fewer and wider frames
        _block(table, f"encoder.model.{theirs}.", f"encoder.stages.{2 * stage}.", width, config)
        shape = (2 * width, width, 2 * ratio)
        _conv(table, f"encoder.model.{theirs + 2}.conv.conv", f"encoder.stages.{2 * stage + 1}", shape)
        width *= 2
        theirs += 3
    shape = (config.dim, width, config.last_kernel)
    _conv(table, f"encoder.model.{theirs + 1}.conv.conv", "encoder.last", shape)


def _decoder(table: Table, config: MimiConfig) -> None:
    """The convolutions on the way out: the encoder's, mirrored."""
    width = config.filters * 2 ** len(config.ratios)
    _conv(table, "decoder.model.0.conv.conv", "decoder.first", (width, config.dim, config.kernel))
    theirs = 2
    for stage, ratio in enumerate(config.ratios):
        # a transposed convolution [in, out, kernel], then a residual block
        half = width // 2
        up = f"decoder.model.{theirs}.convtr.convtr"
        _conv(table, up, f"decoder.stages.{2 * stage}", (width, half, 2 * ratio), outputs=half)
        _block(table, f"decoder.model.{theirs + 1}.", f"decoder.stages.{2 * stage + 1}.", half, config)
        width = half
        theirs += 3
    _conv(table, f"decoder.model.{theirs}.conv.conv", "decoder.last", (1, width, config.last_kernel))


def _conv(table: Table, theirs: str, ours: str, shape: tuple, outputs: int | None = None) -> None:
    """A convolution and its bias, which has as many entries as the weight's first dimension, or `outputs`."""
    table.add(theirs + ".weight", ours + ".weight", shape)
    table.add(theirs + ".bias", ours + ".bias", (outputs or shape[0],))


def _block(table: Table, theirs: str, ours: str, width: int, config: MimiConfig) -> None:
    inner = width // config.compress
    narrow = (inner, width, config.residual_kernel)
    _conv(table, theirs + "block.1.conv.conv", ours + "conv1", narrow)
    _conv(table, theirs + "block.3.conv.conv", ours + "conv2", (width, inner, 1))


def _mimi_layer(table: Table, theirs: str, ours: str, config: MimiConfig) -> None:
    dim = config.transformer.dim
    hidden = config.transformer.hidden
    _attention(table, theirs, ours, dim)
    table.add(theirs + "linear1.weight", ours + "mlp.linear1.weight", (hidden, dim))
    table.add(theirs + "linear2.weight", ours + "mlp.linear2.weight", (dim, hidden))
    for half in ("1", "2"):
        table.add(f"{theirs}layer_scale_{half}.scale", f"{ours}scale{half}", (dim,))
        table.add(f"{theirs}norm{half}.weight", f"{ours}norm{half}.weight", (dim,))
        table.add(f"{theirs}norm{half}.bias", f"{ours}norm{half}.bias", (dim,))


def _rvq(table: Table, theirs: str, ours: str, books: int, config: MimiConfig) -> None:
    inner = config.codebook_dim
    table.add(theirs + "input_proj.weight", ours + "input_proj.weight", (inner, config.dim, 1))
    table.add(theirs + "output_proj.weight", ours + "output_proj.weight", (config.dim, inner, 1))
    for number in range(books):
        book = f"{theirs}vq.layers.{number}._codebook."
        mine = f"{ours}codebooks.{number}."
        table.add(book + "_initialized", mine + "initialized", (1,))
        table.add(book + "cluster_usage", mine + "cluster_usage", (config.bins,))
        table.add(book + "embedding_sum", mine + "embedding_sum", (config.bins, inner))


def check_bijection(model: nn.Module, table: dict[str, Place]) -> None:
    """Every element of the model has exactly one official home. Raises AssertionError otherwise."""
    filled = Counter()
    for place in table.values():
        filled[place.name] += prod(place.shape)
    there = {name: tensor.numel() for name, tensor in tensors_of(model).items()}
    assert filled == there, "rename table and model disagree"
