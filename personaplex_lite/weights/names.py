"""Our names beside the official ones: config keywords, and the one rename table for tensors.

What departs from the textbook: we stack what the official code keeps apart (16 embedding tables, one weight
per depth step), so several official tensors fill parts of one of ours. The table is a bijection all the same:
every official tensor has exactly one place, and every place exactly one tensor.
"""
from __future__ import annotations

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
        return (whole if self.part is None else whole[self.part]).view(self.shape)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach() for n, t in [*model.named_parameters(), *model.named_buffers()]}


def lm_names(config: LMConfig) -> dict[str, Place]:
    c, k, d, dd = config, config.depth_steps, config.temporal.dim, config.depth.dim
    table = {"text_emb.weight": Place("text_embed", None, (c.text_vocab + 1, d)),
             "text_linear.weight": Place("text_head.weight", None, (c.text_vocab, d)),
             "out_norm.alpha": Place("out_norm.alpha", None, (1, 1, d)),
             "depformer_text_emb.weight": Place("depth.text_embed", None, (c.text_vocab + 1, dd))}
    for i in range(c.rows - 1):
        table[f"emb.{i}.weight"] = Place("audio_embed", i, (c.audio_vocab + 1, d))
    for i in range(k):
        table[f"depformer_in.{i}.weight"] = Place("depth.inputs.weight", i, (dd, d))
        table[f"linears.{i}.weight"] = Place("depth.heads.weight", i, (c.audio_vocab, dd))
        if i < k - 1:
            table[f"depformer_emb.{i}.weight"] = Place("depth.audio_embed", i, (c.audio_vocab + 1, dd))
    for n in range(c.temporal.layers):
        theirs, ours, h = f"transformer.layers.{n}.", f"temporal.layers.{n}.", c.temporal.hidden
        table |= _attention(theirs, ours, d)
        table |= {f"{theirs}norm{j}.alpha": Place(f"{ours}norm{j}.alpha", None, (1, 1, d)) for j in (1, 2)}
        table[theirs + "gating.linear_in.weight"] = Place(ours + "mlp.linear_in.weight", None, (2 * h, d))
        table[theirs + "gating.linear_out.weight"] = Place(ours + "mlp.linear_out.weight", None, (d, h))
    for n in range(c.depth.layers):
        theirs, ours, h = f"depformer.layers.{n}.", f"depth.layers.{n}.", c.depth.hidden
        table |= {f"{theirs}norm{j}.alpha": Place(f"{ours}norm{j}.alpha", None, (1, 1, dd)) for j in (1, 2)}
        table[theirs + "self_attn.in_proj_weight"] = Place(ours + "in_proj.weight", None, (k * 3 * dd, dd))
        table[theirs + "self_attn.out_proj.weight"] = Place(ours + "out_proj.weight", None, (k * dd, dd))
        for i in range(k):
            table[f"{theirs}gating.{i}.linear_in.weight"] = Place(ours + "linear_in.weight", i, (2 * h, dd))
            table[f"{theirs}gating.{i}.linear_out.weight"] = Place(ours + "linear_out.weight", i, (dd, h))
    return table


def mimi_names(config: MimiConfig) -> dict[str, Place]:
    c, d, table = config, config.dim, {}
    width, n = c.filters, len(c.ratios)
    conv = "encoder.model.{}.conv.conv", "decoder.model.{}.convtr.convtr"
    table |= _conv(conv[0].format(0), "encoder.first", (width, 1, c.kernel))
    for i, ratio in enumerate(reversed(c.ratios)):
        table |= _block(f"encoder.model.{1 + 3 * i}.", f"encoder.stages.{2 * i}.", width, c)
        shape = (2 * width, width, 2 * ratio)
        table |= _conv(conv[0].format(3 + 3 * i), f"encoder.stages.{2 * i + 1}", shape)
        width *= 2
    table |= _conv(conv[0].format(2 + 3 * n), "encoder.last", (d, width, c.last_kernel))
    table |= _conv("decoder.model.0.conv.conv", "decoder.first", (width, d, c.kernel))
    for i, ratio in enumerate(c.ratios):
        shape = (width, width // 2, 2 * ratio)
        table |= _conv(conv[1].format(2 + 3 * i), f"decoder.stages.{2 * i}", shape, bias=width // 2)
        width //= 2
        table |= _block(f"decoder.model.{3 + 3 * i}.", f"decoder.stages.{2 * i + 1}.", width, c)
    table |= _conv(f"decoder.model.{2 + 3 * n}.conv.conv", "decoder.last", (1, width, c.last_kernel))
    table["downsample.conv.conv.conv.weight"] = Place("downsample.weight", None, (d, d, 4))
    table["upsample.convtr.convtr.convtr.weight"] = Place("upsample.weight", None, (d, 1, 4))
    for side in ("encoder_transformer", "decoder_transformer"):
        for i in range(c.transformer.layers):
            table |= _mimi_layer(f"{side}.transformer.layers.{i}.", f"{side}.layers.{i}.", c)
    return table | _rvq("first", "semantic", 1, c) | _rvq("rest", "acoustic", c.codebooks_stored - 1, c)


def _attention(theirs: str, ours: str, d: int) -> dict[str, Place]:
    return {theirs + "self_attn.in_proj_weight": Place(ours + "attn.in_proj.weight", None, (3 * d, d)),
            theirs + "self_attn.out_proj.weight": Place(ours + "attn.out_proj.weight", None, (d, d))}


def _mimi_layer(theirs: str, ours: str, c: MimiConfig) -> dict[str, Place]:
    d, h = c.transformer.dim, c.transformer.hidden
    table = _attention(theirs, ours, d)
    table[theirs + "linear1.weight"] = Place(ours + "mlp.linear1.weight", None, (h, d))
    table[theirs + "linear2.weight"] = Place(ours + "mlp.linear2.weight", None, (d, h))
    for j in (1, 2):
        table[f"{theirs}layer_scale_{j}.scale"] = Place(f"{ours}scale{j}", None, (d,))
        for kind in ("weight", "bias"):
            table[f"{theirs}norm{j}.{kind}"] = Place(f"{ours}norm{j}.{kind}", None, (d,))
    return table


def _conv(theirs: str, ours: str, shape: tuple, bias: int | None = None) -> dict[str, Place]:
    return {theirs + ".weight": Place(ours + ".weight", None, shape),
            theirs + ".bias": Place(ours + ".bias", None, (bias or shape[0],))}


def _block(theirs: str, ours: str, width: int, c: MimiConfig) -> dict[str, Place]:
    inner = width // c.compress
    return (_conv(theirs + "block.1.conv.conv", ours + "conv1", (inner, width, c.residual_kernel))
            | _conv(theirs + "block.3.conv.conv", ours + "conv2", (width, inner, 1)))


def _rvq(theirs: str, ours: str, books: int, c: MimiConfig) -> dict[str, Place]:
    outer, inner = f"quantizer.rvq_{theirs}.", f"rvq.{ours}."
    shapes = {"input_proj.weight": (c.codebook_dim, c.dim, 1),
              "output_proj.weight": (c.dim, c.codebook_dim, 1)}
    table = {outer + name: Place(inner + name, None, shape) for name, shape in shapes.items()}
    for i in range(books):
        book, mine = f"{outer}vq.layers.{i}._codebook.", f"{inner}codebooks.{i}."
        table[book + "_initialized"] = Place(mine + "initialized", None, (1,))
        table[book + "cluster_usage"] = Place(mine + "cluster_usage", None, (c.bins,))
        table[book + "embedding_sum"] = Place(mine + "embedding_sum", None, (c.bins, c.codebook_dim))
    return table


def check_bijection(model: nn.Module, table: dict[str, Place]) -> None:
    """Every element of the model has exactly one official home. Raises AssertionError otherwise."""
    tensors, filled = tensors_of(model), {}
    for place in table.values():
        filled[place.name] = filled.get(place.name, 0) + prod(place.shape)
    assert filled == {n: t.numel() for n, t in tensors.items()}, "rename table and model disagree"
