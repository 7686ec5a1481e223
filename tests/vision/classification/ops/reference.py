"""The operations and their gradients in float64 numpy, from their definitions."""

import numpy as np


def sides(padding):
    """((top, bottom), (left, right)) for an array of maps."""
    return ((0, 0), (0, 0), *padding)


def same_on_both(padding):
    return tuple((size, size) for size in padding)


def conv(x, weight, stride, padding, dilation):
    """The output, and a function from its gradient to those of x, the weight and a bias.

    ``weight`` is (O, I, kh, kw) or (G, O/G, I/G, kh, kw); the others are pairs, for rows and
    columns. At kernel position (i, j) it is a product of matrices.
    """
    shape, x = x.shape, x.astype(np.float64)
    grouped = weight.astype(np.float64)
    grouped = grouped if weight.ndim == 5 else grouped[None]
    groups, out_channels, in_channels, *kernel = grouped.shape
    padded = np.pad(x, sides(same_on_both(padding)))
    size = [
        (padded.shape[2 + axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    ]
    at = {}
    for i, j in np.ndindex(*kernel):
        rows, columns = (
            slice(start, start + step * (length - 1) + 1, step)
            for start, step, length in zip((i * dilation[0], j * dilation[1]), stride, size)
        )
        at[i, j] = (slice(None), slice(None), rows, columns)

    def met(i, j):
        """The pixels of x at this position, (G, I/G, N H' W')."""
        pixels = padded[at[i, j]].reshape(len(x), groups, in_channels, -1)
        return pixels.transpose(1, 2, 0, 3).reshape(groups, in_channels, -1)

    filters = np.ascontiguousarray(grouped.transpose(3, 4, 0, 1, 2))  # as BLAS wants them
    y = sum(filters[place] @ met(*place) for place in at)
    y = y.reshape(groups * out_channels, len(x), *size).transpose(1, 0, 2, 3)

    def gradients(dy):
        flat = dy.astype(np.float64).reshape(len(x), groups, out_channels, -1)
        flat = flat.transpose(1, 2, 0, 3).reshape(groups, out_channels, -1)
        dpadded, dweight = np.zeros(padded.shape), np.zeros(grouped.shape)
        for place, pixels in at.items():
            dweight[(..., *place)] = flat @ met(*place).transpose(0, 2, 1)
            back = filters[place].transpose(0, 2, 1) @ flat
            back = back.reshape(groups * in_channels, len(x), *size)
            dpadded[pixels] += back.transpose(1, 0, 2, 3)
        inner = [slice(p, p + length) for p, length in zip(padding, shape[2:])]
        return (
            dpadded[(slice(None), slice(None), *inner)],
            dweight.reshape(weight.shape),
            dy.sum((0, 2, 3), dtype=np.float64),
        )

    return y, gradients


def batch_norm(x, gamma, beta, eps, moments=None, shortcut=None, relu=False):
    """The output, its gradients' function and (mean, biased variance).

    ``moments`` are given in evaluation, per channel; all is (C,) but the maps. The function
    returns the gradients of x, gamma, beta and the shortcut.
    """
    x = x.astype(np.float64)
    if shortcut is not None:
        shortcut = shortcut.astype(np.float64)
    mean, variance = moments or (x.mean((0, 2, 3)), x.var((0, 2, 3)))
    mean, variance, gamma, beta = (
        each.astype(np.float64).reshape(1, -1, 1, 1) for each in (mean, variance, gamma, beta)
    )
    sigma = np.sqrt(variance + eps)
    normal = (x - mean) / sigma
    before = normal * gamma + beta + (0 if shortcut is None else shortcut)
    y = np.maximum(before, 0) if relu else before

    def gradients(dy):
        dy = np.where(before > 0, dy, 0) if relu else dy.astype(np.float64)
        dgamma, dbeta = (dy * normal).sum((0, 2, 3)), dy.sum((0, 2, 3))
        dnormal = dy * gamma
        dx = dnormal / sigma
        if moments is None:
            of_mean = dnormal.mean((0, 2, 3), keepdims=True)
            of_variance = (dnormal * normal).mean((0, 2, 3), keepdims=True)
            dx = (dnormal - of_mean - normal * of_variance) / sigma
        return dx, dgamma, dbeta, dy

    return y, gradients, (mean.ravel(), variance.ravel())


def max_pool(x, kernel, stride, padding):
    """The output and its gradient's function, for maps without equal values in a window."""
    padded = np.pad(x.astype(np.float64), sides(padding), constant_values=-np.inf)
    size = [(length - kernel) // stride + 1 for length in padded.shape[2:]]
    y, places = np.empty((*x.shape[:2], *size)), {}
    for n, c, i, j in np.ndindex(y.shape):
        top, left = i * stride, j * stride
        window = padded[n, c, top : top + kernel, left : left + kernel]
        row, column = np.unravel_index(window.argmax(), window.shape)
        y[n, c, i, j] = window[row, column]
        places[n, c, i, j] = (n, c, top + row, left + column)

    def gradient(dy):
        dpadded = np.zeros(padded.shape)
        for output, place in places.items():
            dpadded[place] += dy[output]
        (top, _), (left, _) = padding
        return dpadded[:, :, top : top + x.shape[2], left : left + x.shape[3]]

    return y, gradient


def halve(x):
    """The mean over 2x2 squares, of what the map has of them; its gradient's function."""
    size = [(length + 1) // 2 for length in x.shape[2:]]
    y = np.empty((*x.shape[:2], *size))
    squares = {
        (i, j): (slice(None), slice(None), slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
        for i, j in np.ndindex(*size)
    }
    for (i, j), square in squares.items():
        y[:, :, i, j] = x[square].mean((2, 3), dtype=np.float64)

    def gradient(dy):
        dx = np.empty(x.shape)
        for (i, j), square in squares.items():
            pixels = dx[square].shape[2] * dx[square].shape[3]
            dx[square] = dy[:, :, i, j, None, None].astype(np.float64) / pixels
        return dx

    return y, gradient
