"""Blocks of the U-Nets by the kernels of `emm.nets.kernels`: the same, in fewer trips to memory.

For tensors (B, C, H, W) in channels-last memory, under autocast. Norm, SiLU and dropout are one
kernel, which also adds what is constant per channel: the bias of the convolution before it and the
shift by the embedding. A residual sum is one kernel, and its gradient another, that gives the one
of the biases beside it.
"""

import functools
import os
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

SQRT_HALF = 0.5**0.5
LAYOUT = torch.channels_last
LARGE, SMALL = (64, 8192, 8), (32, 2048, 4)  # channels, elements at a time and warps of a program
MANY = 256  # pixels from which images are large
TILE = 4096  # elements of a program of the others
CAPABILITY = (8, 0)  # of GPUs that Triton supports
BLOCKS = 1024  # programs that keep a GPU busy


def applies(x: Tensor) -> bool:
    """Whether blocks may take x: in 16 bits and channels-last memory, on a GPU that has Triton.

    With TRITON_INTERPRET=1 in the environment it may be on the CPU, for tests.
    """
    if x.dtype not in (torch.bfloat16, torch.float16):
        return False
    if not x.is_contiguous(memory_format=LAYOUT) or x.numel() >= 1 << 31:
        return False
    if x.is_cuda:
        return _compiles(x.device.index)
    return os.environ.get("TRITON_INTERPRET") == "1" and _kernels() is not None


@functools.cache
def _kernels() -> Any:
    """The module of kernels; None without Triton."""
    try:
        from emm.nets import kernels
    except ImportError:
        return None
    return kernels


@functools.cache
def _compiles(device: int) -> bool:
    """Whether Triton makes kernels for a GPU; says why not if it is there and cannot."""
    if _kernels() is None or torch.cuda.get_device_capability(device) < CAPABILITY:
        return False
    try:
        _kernels().triton.runtime.driver.active.get_current_target()
    except Exception as error:  # no compiler, no headers of Python, no libcuda: of many kinds
        problem = " ".join(str(error).split())
        print(f"slower without Triton's kernels: {problem}", file=sys.stderr, flush=True)
        return False
    return True


def block(module: Any, x: Tensor, embedding: Tensor) -> Tensor:
    """As emm.nets.blocks.Block.forward."""
    hidden, x = activated(x, module.norm_in)
    if module.resample is not None:
        hidden, x = resampled(hidden, module.resample), resampled(x, module.resample)
    hidden = _spatial(hidden, module.conv_in)
    shift = module.shift(embedding).float() + module.conv_in.bias
    hidden, _ = activated(hidden, module.norm_out, shift, module.dropout)
    return _joined(module, x, hidden, SQRT_HALF)


def modulated_block(module: Any, x: Tensor, embedding: Tensor) -> Tensor:
    """As emm.nets.iddpm.ResidualBlock.forward."""
    hidden, x = activated(x, module.norm_in)
    hidden = _spatial(hidden, module.conv_in)
    scale, offset = module.modulation(functional.silu(embedding)).float().chunk(2, dim=1)
    gain, offset = module.norm_out.weight * (1 + scale), module.norm_out.bias * (1 + scale) + offset
    about = (module.norm_out.num_groups, module.norm_out.eps, True, *_dropout(module.dropout))
    seed = _seed(x, module.dropout)
    hidden, _ = _Norm.apply(hidden, gain, offset, module.conv_in.bias, seed, about)
    return _joined(module, x, hidden, 1.0)


def _joined(module: Any, x: Tensor, hidden: Tensor, scale: float) -> Tensor:
    """The end of a block: its last convolution, the sum with its shortcut, and its attention."""
    hidden, bias = _spatial(hidden, module.conv_out), module.conv_out.bias
    if module.shortcut is not None:
        x, bias = _pointwise(x, module.shortcut), bias + module.shortcut.bias
    x = residual(x, hidden, bias, scale)
    return x if module.attention is None else module.attention(x)


def attention(module: Any, x: Tensor) -> Tensor:
    """As emm.nets.blocks.Attention.forward."""
    return _attended(module, x, 1, SQRT_HALF)


def head_attention(module: Any, x: Tensor) -> Tensor:
    """As emm.nets.iddpm.HeadAttention.forward."""
    return _attended(module, x, module.heads, 1.0)


def _attended(module: Any, x: Tensor, heads: int, scale: float) -> Tensor:
    normal, x = norm(x, module.norm)
    count, channels, height, width = x.shape
    tokens = _pointwise(normal, module.qkv, module.qkv.bias).permute(0, 2, 3, 1)
    tokens = tokens.reshape(count, height * width, heads, 3, channels // heads)
    mixed = functional.scaled_dot_product_attention(*tokens.permute(3, 0, 2, 1, 4).unbind(0))
    mixed = mixed.transpose(1, 2).reshape(count, height, width, channels).permute(0, 3, 1, 2)
    return residual(x, _pointwise(mixed, module.projection), module.projection.bias, scale)


def _spatial(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """A convolution without its bias."""
    return functional.conv2d(x, layer.weight, None, layer.stride, layer.padding)


def _pointwise(x: Tensor, layer: nn.Conv2d, bias: Tensor | None = None) -> Tensor:
    """A convolution of one pixel as the product of matrices that it is."""
    rows = functional.linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1), bias)
    return rows.permute(0, 3, 1, 2)


def activated(
    x: Tensor, layer: nn.GroupNorm, shift: Tensor | None = None, dropout: Any = None
) -> tuple[Tensor, Tensor]:
    """dropout(silu(layer(x + shift))), and x for further use, whose gradient joins in one kernel.

    shift: fp32 (B, C).
    """
    return _norm(x, layer, shift, dropout, True)


def norm(x: Tensor, layer: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """layer(x), and x for further use."""
    return _norm(x, layer, None, None, False)


def resampled(x: Tensor, layer: Any) -> Tensor:
    """As emm.nets.blocks.Resample.forward."""
    down = layer.direction == "down"
    if not layer.plain or (down and (x.shape[2] % 2 or x.shape[3] % 2)):
        return layer(x)
    return _Resize.apply(x, False, 0.25) if down else _Resize.apply(x, True, 1.0)


def _norm(x: Tensor, layer: nn.GroupNorm, shift: Any, dropout: Any, silu: bool) -> Any:
    about = (layer.num_groups, layer.eps, silu, *_dropout(dropout))
    return _Norm.apply(x, layer.weight, layer.bias, shift, _seed(x, dropout), about)


def _dropout(module: Any) -> tuple[float, int]:
    """Rate of a dropout, 0 where it is off, and the position in the batch of the first image."""
    if module is None or not module.training:
        return 0.0, 0
    return module.rate, module.part.start or 0


def _seed(x: Tensor, dropout: Any) -> Tensor | None:
    """Random bits for the masks of a dropout, from torch's generator; None where it is off."""
    if not _dropout(dropout)[0]:
        return None
    return torch.randint(-(1 << 31), 1 << 31, (2,), dtype=torch.int32, device=x.device)


def residual(x: Tensor, other: Tensor, bias: Tensor, scale: float = SQRT_HALF) -> Tensor:
    """(x + other + bias) * scale; bias fp32 (C,)."""
    return _Sum.apply(x, other, bias, scale)


class _Norm(torch.autograd.Function):
    """Norm and x; weight, bias and shift are (C,), or (B, C) with those of each image."""

    @staticmethod
    def forward(ctx, x, weight, bias, shift, seed, about):
        kernels = _kernels()
        groups, eps, silu, rate, first = about
        x = x.contiguous(memory_format=LAYOUT)
        weight, bias = weight.contiguous(), bias.contiguous()
        shift = None if shift is None else shift.contiguous()
        count, channels, height, width = x.shape
        y = torch.empty_like(x)
        mean, rstd = x.new_empty((2, count, groups), dtype=torch.float32)
        average = x.new_empty((count, channels), dtype=torch.float32)
        sizes = _sizes(channels, groups, height * width)
        kernels.norm_forward[count, groups // sizes["GROUPS"]](
            *(
                x,
                y,
                weight,
                bias,
                _or_unread(shift, mean),
                _or_unread(seed, mean),
                average,
                mean,
                rstd,
            ),
            *(height * width, channels, groups, first, eps, *_dropping(rate)),
            *(_image_stride(weight), _image_stride(shift)),
            **sizes,
            SHIFTED=shift is not None,
            SILU=silu,
            DROPS=rate > 0,
        )
        ctx.save_for_backward(x, weight, bias, shift, seed, average, mean, rstd)
        ctx.about = about
        ctx.set_materialize_grads(False)
        return y, x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, joined):
        kernels = _kernels()
        x, weight, bias, shift, seed, *statistics = ctx.saved_tensors
        groups, _, silu, rate, first = ctx.about
        count, channels, height, width = x.shape
        dx = torch.empty_like(x)
        dy, *dy_strides = _rows(dy)
        joins = joined is not None
        joined, *joined_strides = _rows(joined) if joins else (dy, 0, 0)
        slopes = x.new_empty((2, count, channels), dtype=torch.float32)  # of weight and bias
        dshift = torch.empty_like(slopes[0])
        sizes = _sizes(channels, groups, height * width)
        kernels.norm_backward[count, groups // sizes["GROUPS"]](
            *(
                x,
                dy,
                joined,
                dx,
                weight,
                bias,
                _or_unread(shift, x),
                _or_unread(seed, x),
                *statistics,
            ),
            *(*slopes, dshift, height * width, channels, groups, first, *_dropping(rate)),
            *(_image_stride(weight), _image_stride(shift), *dy_strides, *joined_strides),
            **sizes,
            SHIFTED=shift is not None,
            SILU=silu,
            DROPS=rate > 0,
            JOINS=joins,
        )
        if weight.ndim == 1:
            slopes = slopes.sum(1)
        if shift is None:
            dshift = None
        elif shift.ndim == 1:
            dshift = dshift.sum(0)
        return dx, *slopes, dshift, None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, other, bias, scale):
        ctx.scale = scale
        kernels = _kernels()
        x, other = (part.contiguous(memory_format=LAYOUT) for part in (x, other))
        count, channels, height, width = x.shape
        y, rows = torch.empty_like(x), count * height * width
        sizes = _sum_sizes(channels)
        grid = (_ceil(rows, sizes["STEP"]), _ceil(channels, sizes["WIDTH"]))
        kernels.sum_forward[grid](x, other, bias, y, rows, channels, scale, **sizes)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        kernels = _kernels()
        count, channels, height, width = dy.shape
        dy, _, row = _rows(dy)
        dx = torch.empty(dy.shape, dtype=dy.dtype, device=dy.device, memory_format=LAYOUT)
        sizes, rows = _sum_sizes(channels), count * height * width
        steps = max(1, rows // (BLOCKS * sizes["STEP"]))
        blocks = _ceil(rows, steps * sizes["STEP"])
        sums = dy.new_empty((blocks, channels), dtype=torch.float32)
        kernels.sum_backward[blocks, _ceil(channels, sizes["WIDTH"])](
            *(dy, dx, sums, rows, channels, ctx.scale, row),
            STEPS=steps,
            **sizes,
        )
        return dx, dx, sums.sum(0), None


class _Resize(torch.autograd.Function):
    """The gradient of a sum over pixels repeats that of the sum, and the other way round."""

    @staticmethod
    def forward(ctx, x, up, factor):
        ctx.about = (not up, factor)
        return _resize(x, up, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return _resize(dy, *ctx.about), None, None


def _resize(x: Tensor, up: bool, factor: float) -> Tensor:
    """Each pixel four times if up, else sums over 2x2 pixels; times a factor."""
    kernels, x = _kernels(), x.contiguous(memory_format=LAYOUT)
    count, channels, height, width = x.shape
    size = (2 * height, 2 * width) if up else (height // 2, width // 2)
    y = torch.empty((count, channels, *size), dtype=x.dtype, device=x.device, memory_format=LAYOUT)
    small = x if up else y
    rows, columns = count * small.shape[2], small.shape[3]
    sizes = _sum_sizes(channels)
    grid = (_ceil(rows * columns, sizes["STEP"]), _ceil(channels, sizes["WIDTH"]))
    kernel = kernels.repeat if up else kernels.pool
    kernel[grid](x, y, rows, columns, channels, factor, **sizes)
    return y


def _sizes(channels: int, groups: int, pixels: int) -> dict[str, int]:
    """What a program of the norm has: groups, lanes for their channels, pixels at a time."""
    cpg, several = channels // groups, 1
    lanes, tile, warps = LARGE if pixels >= MANY else SMALL
    while cpg * several < lanes and groups % (2 * several) == 0:
        several *= 2
    slab = _power(cpg * several)
    step = max(1, min(tile // slab, _power(pixels)))
    shape = {"CPG": cpg, "GROUPS": several, "SLAB": slab, "STEP": step}
    whole = slab == cpg * several and pixels % step == 0
    return shape | {"WHOLE": whole, "num_warps": max(1, min(warps, slab * step * warps // tile))}


def _sum_sizes(channels: int) -> dict[str, int]:
    width = min(256, _power(channels))
    return {"WIDTH": width, "STEP": max(1, TILE // width)}


def _power(count: int) -> int:
    """The smallest power of two from a count on."""
    return 1 << (count - 1).bit_length()


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def _image_stride(values: Tensor | None) -> int:
    """Distance of the values of one image to the next one's."""
    return 0 if values is None or values.ndim == 1 else values.shape[1]


def _or_unread(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A kernel takes a tensor also where it reads none."""
    return other if tensor is None else tensor


def _dropping(rate: float) -> tuple[int, float]:
    """Threshold for 32 random bits, and the scale of what is kept."""
    return round(rate * (1 << 32)), 1 / (1 - rate)


def _rows(x: Tensor) -> tuple[Tensor, int, int]:
    """x with the strides of its images and pixels, copied unless it is a slice of channels."""
    image, channel, line, pixel = x.stride()
    if channel != 1 or line != x.shape[3] * pixel or image != x.shape[2] * line:
        x = x.contiguous(memory_format=LAYOUT)
        return x, x.shape[1] * x.shape[2] * x.shape[3], x.shape[1]
    return x, image, pixel
