"""GPU kernels, in Triton, for what a U-Net does between its convolutions.

Tensors are (B, C, H, W) in channels-last memory, in the precision of autocast; statistics and sums
are fp32. A program of the norm has a few whole groups of one image: it reads them from memory once
for their statistics and again, from the cache, for the result. It has no more arithmetic per
element than a GPU does while it reads one: sums are taken per lane and added up in the end.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=["first"])
def norm_forward(
    x, y, weight, bias, shift, seed, average, mean, rstd,
    pixels, channels, groups, first, eps, threshold, scale, own_gain, own_shift,
    CPG: tl.constexpr, GROUPS: tl.constexpr, SLAB: tl.constexpr, STEP: tl.constexpr,
    WHOLE: tl.constexpr, SHIFTED: tl.constexpr, SILU: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    """y = dropout(silu(group_norm(x + shift))).

    Also the mean of x + shift over the pixels, and the mean and 1 / deviation of each group. From
    image to image weight and bias lie `own_gain` apart, shifts `own_shift`: 0 if all share them.
    """
    image, slab = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, SLAB)
    channel, inside = slab * (GROUPS * CPG) + lane, lane < GROUPS * CPG
    x += image.to(tl.int64) * pixels * channels
    y += image.to(tl.int64) * pixels * channels
    # Deviations from one pixel: squares of values far from 0 would lose their variance.
    pivot = tl.load(x + channel, mask=inside, other=0.0).to(tl.float32)
    sums = tl.zeros([STEP, SLAB], tl.float32)
    squares = tl.zeros([STEP, SLAB], tl.float32)
    for start in range(0, pixels, STEP):
        pixel = start + tl.arange(0, STEP)
        place = pixel[:, None] * channels + channel[None, :]
        there = (pixel < pixels)[:, None] & inside[None, :]
        values = read(x + place, there, WHOLE) - pivot[None, :]
        if not WHOLE:
            values = tl.where(there, values, 0.0)
        sums += values
        squares += values * values
    offset = tl.sum(sums, 0) / pixels
    square = tl.sum(squares, 0) - offset * offset * pixels
    added = tl.zeros([SLAB], tl.float32)
    if SHIFTED:
        added = tl.load(shift + image * own_shift + channel, mask=inside, other=0.0)
    own = pivot + offset + added
    tl.store(average + image * channels + channel, own, mask=inside)
    own = tl.where(inside, own, 0.0)
    group_mean = group_sum(own, CPG, GROUPS, SLAB) / CPG
    centre = to_lanes(group_mean, CPG, GROUPS, SLAB)
    square += tl.where(inside, pixels * (own - centre) * (own - centre), 0.0)
    group_rstd = 1 / tl.sqrt(group_sum(square, CPG, GROUPS, SLAB) / (CPG * pixels) + eps)
    group = image * groups + slab * GROUPS + tl.arange(0, GROUPS)
    tl.store(mean + group, group_mean)
    tl.store(rstd + group, group_rstd)
    factor = to_lanes(group_rstd, CPG, GROUPS, SLAB)
    factor *= tl.load(weight + image * own_gain + channel, mask=inside, other=0.0)
    constant = (added - centre) * factor + tl.load(
        bias + image * own_gain + channel, mask=inside, other=0.0
    )
    index = ((first + image) * pixels * channels).to(tl.uint32)
    for start in range(0, pixels, STEP):
        pixel = start + tl.arange(0, STEP)
        place = pixel[:, None] * channels + channel[None, :]
        there = (pixel < pixels)[:, None] & inside[None, :]
        values = read(x + place, there, WHOLE) * factor[None, :] + constant[None, :]
        if SILU:
            values *= sigmoid(values)
        if DROPS:
            values = tl.where(kept(index + place.to(tl.uint32), seed, threshold), values, 0.0)
            values *= scale
        write(y + place, values, there, WHOLE)


@triton.jit(do_not_specialize=["first"])
def norm_backward(
    x, dy, joined, dx, weight, bias, shift, seed, average, mean, rstd, dweight, dbias, dshift,
    pixels, channels, groups, first, threshold, scale, own_gain, own_shift,
    dy_image, dy_pixel, joined_image, joined_pixel,
    CPG: tl.constexpr, GROUPS: tl.constexpr, SLAB: tl.constexpr, STEP: tl.constexpr,
    WHOLE: tl.constexpr, SHIFTED: tl.constexpr, SILU: tl.constexpr, DROPS: tl.constexpr,
    JOINS: tl.constexpr,
):  # fmt: skip
    """Gradients of norm_forward, with `joined` added to that of x; those of channels per image."""
    image, slab = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, SLAB)
    channel, inside = slab * (GROUPS * CPG) + lane, lane < GROUPS * CPG
    x += image.to(tl.int64) * pixels * channels
    dx += image.to(tl.int64) * pixels * channels
    dy += image.to(tl.int64) * dy_image
    joined += image.to(tl.int64) * joined_image
    group = image * groups + slab * GROUPS + tl.arange(0, GROUPS)
    group_mean = tl.load(mean + group)
    centre = to_lanes(group_mean, CPG, GROUPS, SLAB)
    spread = to_lanes(tl.load(rstd + group), CPG, GROUPS, SLAB)
    gain = tl.load(weight + image * own_gain + channel, mask=inside, other=0.0)
    offset = tl.load(bias + image * own_gain + channel, mask=inside, other=0.0)
    own = image * channels + channel
    total = (tl.load(average + own, mask=inside, other=0.0) - centre) * spread * pixels
    if SHIFTED:
        centre -= tl.load(shift + image * own_shift + channel, mask=inside, other=0.0)
    constant = -centre * spread  # of the normalized values
    index = ((first + image) * pixels * channels).to(tl.uint32)
    sums = tl.zeros([STEP, SLAB], tl.float32)
    products = tl.zeros([STEP, SLAB], tl.float32)
    for start in range(0, pixels, STEP):
        pixel = start + tl.arange(0, STEP)
        place = pixel[:, None] * channels + channel[None, :]
        there = (pixel < pixels)[:, None] & inside[None, :]
        slope = read(dy + pixel[:, None] * dy_pixel + channel[None, :], there, WHOLE)
        if DROPS:
            slope = tl.where(kept(index + place.to(tl.uint32), seed, threshold), slope, 0.0)
        values = read(x + place, there, WHOLE)
        normal, slope = normal_and_slope(values, slope, spread, constant, gain, offset, SILU)
        sums += slope
        products += slope * normal
    slopes, product = tl.sum(sums, 0), tl.sum(products, 0)
    if DROPS:
        slopes, product = slopes * scale, product * scale
    size = CPG * pixels
    mean_slope = group_sum(gain * slopes, CPG, GROUPS, SLAB) / size
    mean_slope = to_lanes(mean_slope, CPG, GROUPS, SLAB)
    mean_product = group_sum(gain * product, CPG, GROUPS, SLAB) / size
    mean_product = to_lanes(mean_product, CPG, GROUPS, SLAB)
    tl.store(dweight + own, product, mask=inside)
    tl.store(dbias + own, slopes, mask=inside)
    if SHIFTED:
        shifted = spread * (gain * slopes - pixels * mean_slope - mean_product * total)
        tl.store(dshift + own, shifted, mask=inside)
    gained = gain * spread
    if DROPS:
        gained *= scale
    # dx = spread * (gain * slope - mean_slope - normal * mean_product), of which x is `normal`
    inner = -spread * mean_product
    outer = -spread * mean_slope
    for start in range(0, pixels, STEP):
        pixel = start + tl.arange(0, STEP)
        place = pixel[:, None] * channels + channel[None, :]
        there = (pixel < pixels)[:, None] & inside[None, :]
        slope = read(dy + pixel[:, None] * dy_pixel + channel[None, :], there, WHOLE)
        if DROPS:
            slope = tl.where(kept(index + place.to(tl.uint32), seed, threshold), slope, 0.0)
        values = read(x + place, there, WHOLE)
        normal, slope = normal_and_slope(values, slope, spread, constant, gain, offset, SILU)
        slope = slope * gained[None, :] + (normal * inner[None, :] + outer[None, :])
        if JOINS:
            other = pixel[:, None] * joined_pixel + channel[None, :]
            slope += read(joined + other, there, WHOLE)
        write(dx + place, slope, there, WHOLE)


@triton.jit
def normal_and_slope(values, slope, spread, constant, gain, offset, SILU: tl.constexpr):
    """Normalized values, and the slope of what they are scaled and shifted to, before any SiLU."""
    normal = values * spread[None, :] + constant[None, :]
    if SILU:
        slope *= silu_slope(normal * gain[None, :] + offset[None, :])
    return normal, slope


@triton.jit
def read(pointer, there, WHOLE: tl.constexpr):
    """Values as fp32; 0 where nothing is there."""
    if WHOLE:
        return tl.load(pointer).to(tl.float32)
    return tl.load(pointer, mask=there, other=0.0).to(tl.float32)


@triton.jit
def write(pointer, values, there, WHOLE: tl.constexpr):
    """Store values where something is."""
    if WHOLE:
        tl.store(pointer, values)
    else:
        tl.store(pointer, values, mask=there)


@triton.jit
def group_sum(lanes, CPG: tl.constexpr, GROUPS: tl.constexpr, SLAB: tl.constexpr):
    """Sums (GROUPS,) over the channels of each group."""
    if CPG * GROUPS == SLAB and CPG & (CPG - 1) == 0:
        return tl.sum(tl.reshape(lanes, [GROUPS, CPG]), 1)
    member = (tl.arange(0, SLAB) // CPG)[:, None] == tl.arange(0, GROUPS)[None, :]
    return tl.sum(tl.where(member, lanes[:, None], 0.0), 0)


@triton.jit
def to_lanes(group, CPG: tl.constexpr, GROUPS: tl.constexpr, SLAB: tl.constexpr):
    """The value of its group for each channel (SLAB,)."""
    if CPG * GROUPS == SLAB and CPG & (CPG - 1) == 0:
        return tl.reshape(tl.broadcast_to(group[:, None], [GROUPS, CPG]), [SLAB])
    member = (tl.arange(0, SLAB) // CPG)[:, None] == tl.arange(0, GROUPS)[None, :]
    return tl.sum(tl.where(member, group[None, :], 0.0), 1)


@triton.jit
def sigmoid(value):
    """Without a division: the square of a reciprocal root."""
    root = tl.rsqrt(1 + tl.exp2(value * -LOG2_E))
    return root * root


@triton.jit
def silu_slope(value):
    """Derivative of value * sigmoid(value)."""
    share = sigmoid(value)
    return share + value * (share - share * share)


@triton.jit
def kept(index, seed, threshold):
    """Whether dropout keeps the elements of these indices (uint32).

    By Wellons' integer hash lowbias32, with one key before and one between its multiplications.
    """
    mixed = index ^ tl.load(seed).to(tl.uint32)
    mixed = (mixed ^ (mixed >> 16)) * tl.full([], 0x7FEB352D, tl.uint32)
    mixed ^= tl.load(seed + 1).to(tl.uint32)
    mixed = (mixed ^ (mixed >> 15)) * tl.full([], 0x846CA68B, tl.uint32)
    return (mixed ^ (mixed >> 16)) >= threshold


@triton.jit
def sum_forward(
    x, other, bias, y, rows, channels, scale, WIDTH: tl.constexpr, STEP: tl.constexpr
):  # fmt: skip
    """y = (x + other + bias) * scale; rows are pixels of all images."""
    row = tl.program_id(0).to(tl.int64) * STEP + tl.arange(0, STEP)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    there = (row < rows)[:, None] & (channel < channels)[None, :]
    place = row[:, None] * channels + channel[None, :]
    total = read(x + place, there, False) + read(other + place, there, False)
    total += tl.load(bias + channel, mask=channel < channels, other=0.0)[None, :]
    tl.store(y + place, total * scale, mask=there)


@triton.jit
def sum_backward(
    dy, dx, sums, rows, channels, scale, dy_row, STEPS: tl.constexpr,
    WIDTH: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """dx = dy * scale, and its sums over STEPS * STEP rows."""
    block = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros([STEP, WIDTH], tl.float32)
    for step in range(STEPS):
        row = (block * STEPS + step) * STEP + tl.arange(0, STEP)
        there = (row < rows)[:, None] & (channel < channels)[None, :]
        slope = read(dy + row[:, None] * dy_row + channel[None, :], there, False) * scale
        total += slope
        tl.store(dx + row[:, None] * channels + channel[None, :], slope, mask=there)
    tl.store(sums + block * channels + channel, tl.sum(total, 0), mask=channel < channels)


@triton.jit
def pool(x, y, rows, columns, channels, factor, WIDTH: tl.constexpr, STEP: tl.constexpr):
    """Sums over 2x2 pixels times a factor; rows and columns are those of y, of all images."""
    pixel = tl.program_id(0).to(tl.int64) * STEP + tl.arange(0, STEP)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    there = (pixel < rows * columns)[:, None] & (channel < channels)[None, :]
    corner = 4 * (pixel // columns) * columns + 2 * (pixel % columns)
    line = 2 * columns * channels
    place = x + corner[:, None] * channels + channel[None, :]
    total = read(place, there, False) + read(place + channels, there, False)
    total += read(place + line, there, False) + read(place + line + channels, there, False)
    tl.store(y + pixel[:, None] * channels + channel[None, :], total * factor, mask=there)


@triton.jit
def repeat(x, y, rows, columns, channels, factor, WIDTH: tl.constexpr, STEP: tl.constexpr):
    """Each pixel four times, times a factor; rows and columns are those of x, of all images."""
    pixel = tl.program_id(0).to(tl.int64) * STEP + tl.arange(0, STEP)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    there = (pixel < rows * columns)[:, None] & (channel < channels)[None, :]
    values = read(x + pixel[:, None] * channels + channel[None, :], there, False) * factor
    corner = 4 * (pixel // columns) * columns + 2 * (pixel % columns)
    line = 2 * columns * channels
    place = y + corner[:, None] * channels + channel[None, :]
    tl.store(place, values, mask=there)
    tl.store(place + channels, values, mask=there)
    tl.store(place + line, values, mask=there)
    tl.store(place + line + channels, values, mask=there)
