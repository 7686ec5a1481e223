"""Draw a small labelled image data set, offline: ten kinds of shape among clutter.

    python tools/make_shapes.py data/shapes --train 2000 --val 500 --seed 0

writes data/shapes/train/<class>/<k>.png and data/shapes/val/<class>/<k>.png, ImageNet's layout.
Image k of a split depends on the seed, the split, k and the size alone, and has class k modulo 10:
classes are balanced, a larger --train or --val only adds images, and a command that is repeated
completes what an interrupted one left. A folder that holds anything else is refused untouched.
"""

import argparse
import sys
from pathlib import Path
from typing import Callable, Dict, NoReturn, Optional, Sequence, Tuple

import cv2
import numpy as np
from tqdm import tqdm

SPLITS = ("train", "val")
SUPERSAMPLE = 4  # pictures are drawn this many times larger and averaged down
FRACTION_BITS = 4  # of the coordinates handed to OpenCV

# How hard the pictures are. Lengths are fractions of the image's edge, colours are 8-bit.
RADIUS = (0.30, 0.42)  # of the circle around the shape
SHIFT = 0.13  # of the shape's centre from the image's, at most, in x and in y
TURN = 20.0  # degrees by which a shape is turned, at most, either way
HOLLOW = 0.25  # share of the shapes that are outlines
STROKE = 0.24  # width of an outline, as a fraction of the radius
CONTRAST = (130.0, 175.0)  # brightness of the shape against the background, either way round
MIDDLE = (118.0, 138.0)  # the brightness half-way between the two
TINT = 25.0  # what the channels of a colour differ from its brightness, at most
SLOPE = 20.0  # what the background's corners differ from its middle, about, per channel
NOISE = (2.0, 9.0)  # standard deviation of the noise of a pixel
LINES_BEHIND, DOTS_BEHIND = (1, 2), (1, 4)  # clutter: fewest and most
LINES_BEFORE, DOTS_BEFORE = (0, 1), (1, 3)


def _polar(radii: Sequence[float], start: float = -np.pi / 2) -> np.ndarray:
    """Return points (n, 2) at the given n radii and equal angles, clockwise from straight up."""
    angles = start + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.asarray(radii)[:, None]


def _arc(centre: float, radius: float, start: float, stop: float) -> np.ndarray:
    """Return 48 points (48, 2) of the circle around (centre, 0) from angle start to stop."""
    angles = np.linspace(start, stop, 48)
    return np.stack([centre + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _cross() -> np.ndarray:
    """Return a plus sign (12, 2)."""
    a, b = 0.32, 0.95
    quarter = np.array([[a, -b], [a, -a], [b, -a]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])  # row vector times turn: a quarter turn clockwise
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _arrow() -> np.ndarray:
    """Return an arrow that points right (7, 2)."""
    half = np.array([[-1.0, -0.26], [0.05, -0.26], [0.05, -0.8]])
    return np.concatenate([half, [[1.0, 0.0]], half[::-1] * [1, -1]])


def _bolt() -> np.ndarray:
    """Return a flash of lightning (6, 2)."""
    half = np.array([[0.35, -1.0], [-0.62, 0.2], [-0.05, 0.2]])
    return np.concatenate([half, -half])


def _crescent() -> np.ndarray:
    """Return a moon open to the right (96, 2): a unit disc less a disc of 0.8 around (0.48, 0)."""
    x = (1 + 0.48**2 - 0.8**2) / (2 * 0.48)  # the two circles meet at (x, +-y)
    outer, inner = np.arccos(x), np.arccos((x - 0.48) / 0.8)
    return np.concatenate(
        [_arc(0, 1, outer, 2 * np.pi - outer), _arc(0.48, 0.8, -inner, inner - 2 * np.pi)]
    )


def _heart() -> np.ndarray:
    """Return a heart (64, 2), the usual parametric curve."""
    t = 2 * np.pi * np.arange(64) / 64
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y - 2.5], axis=1) / 15.5


SHAPES: Dict[str, Callable[[], np.ndarray]] = {  # corners (n, 2) in the unit circle, y downwards
    "arrow": _arrow,
    "bolt": _bolt,
    "crescent": _crescent,
    "cross": _cross,
    "disc": lambda: _polar(64 * [1]),
    "heart": _heart,
    "ring": lambda: _polar(64 * [1]),
    "square": lambda: _polar(4 * [1], start=np.pi / 4),
    "star": lambda: _polar(5 * [1, 0.42]),
    "triangle": lambda: _polar(3 * [1]),
}
CLASSES = tuple(SHAPES)  # in alphabetical order, which is that of the labels
HOLLOW_BY_CLASS = {"ring": True, "disc": False, "bolt": False}  # a bolt's outline is a blot


def paint_shape(
    canvas: np.ndarray,
    class_name: str,
    centre: Tuple[float, float],
    radius: float,
    angle: float,
    colour: Sequence[float],
    hollow: bool,
) -> None:
    """Paint a shape on canvas (H, W, 3) in place; lengths in its pixels, angle in radians."""
    stroke = STROKE * radius
    if hollow:
        radius -= stroke / 2  # the line's outer edge, not its middle, reaches the radius
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = SHAPES[class_name]() @ turn * radius + centre
    fixed = [np.round(points * 2**FRACTION_BITS).astype(np.int32)]
    if hollow:
        width = max(1, round(stroke))
        cv2.polylines(canvas, fixed, True, colour, width, cv2.LINE_8, FRACTION_BITS)
    else:
        cv2.fillPoly(canvas, fixed, colour, cv2.LINE_8, FRACTION_BITS)


def _colour(rng: np.random.Generator, brightness: float) -> np.ndarray:
    """Return a tinted grey (3,)."""
    return np.clip(brightness + rng.uniform(-TINT, TINT, 3), 0, 255)


def _background(rng: np.random.Generator, colour: np.ndarray, edge: int) -> np.ndarray:
    """Return a canvas (edge, edge, 3) uint8 whose colour (3,) fades in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.linspace(-1, 1, edge)
    slope = np.cos(angle) * ramp + np.sin(angle) * ramp[:, None]
    canvas = colour + slope[:, :, None] * rng.uniform(-SLOPE, SLOPE, 3)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _clutter(
    rng: np.random.Generator, canvas: np.ndarray, lines: Tuple[int, int], dots: Tuple[int, int]
) -> None:
    """Paint thin lines and small dots on canvas (H, W, 3) in place, from fewest to most of each."""
    edge = len(canvas)
    for _ in range(rng.integers(*lines, endpoint=True)):
        start, stop = rng.integers(0, edge, (2, 2)).tolist()
        colour = _colour(rng, rng.uniform(40, 215)).tolist()
        cv2.line(canvas, start, stop, colour, max(1, edge // 40))
    for _ in range(rng.integers(*dots, endpoint=True)):
        centre = rng.integers(0, edge, 2).tolist()
        colour = _colour(rng, rng.uniform(40, 215)).tolist()
        cv2.circle(canvas, centre, int(edge * rng.uniform(0.015, 0.045)), colour, cv2.FILLED)


def render(class_name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a picture (size, size, 3) uint8 BGR of one shape of the class."""
    edge = SUPERSAMPLE * size
    half = rng.choice([-0.5, 0.5]) * rng.uniform(*CONTRAST)
    middle = rng.uniform(*MIDDLE)
    canvas = _background(rng, _colour(rng, middle - half), edge)
    _clutter(rng, canvas, LINES_BEHIND, DOTS_BEHIND)
    paint_shape(
        canvas,
        class_name,
        centre=tuple(edge * (0.5 + rng.uniform(-SHIFT, SHIFT, 2))),
        radius=edge * rng.uniform(*RADIUS),
        angle=np.deg2rad(rng.uniform(-TURN, TURN)),
        colour=_colour(rng, middle + half).tolist(),
        hollow=HOLLOW_BY_CLASS.get(class_name, rng.random() < HOLLOW),
    )
    _clutter(rng, canvas, LINES_BEFORE, DOTS_BEFORE)
    picture = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    noise = rng.normal(0, rng.uniform(*NOISE), picture.shape)
    return np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)


def encode(seed: int, split: str, k: int, size: int) -> bytes:
    """Return image k of a split as the contents of a PNG file."""
    rng = np.random.default_rng([seed, SPLITS.index(split), k])
    return cv2.imencode(".png", render(CLASSES[k % len(CLASSES)], rng, size))[1].tobytes()


def plan(out: Path, counts: Dict[str, int]) -> Dict[Path, Tuple[str, int]]:
    """Return the split and the number of the image that each file is to hold."""
    return {
        out / split / CLASSES[k % len(CLASSES)] / f"{k:05d}.png": (split, k)
        for split, count in counts.items()
        for k in range(count)
    }


def _part(path: Path) -> Path:
    """Return the name that a file bears until it is complete."""
    return path.with_name(f".{path.name}.part")


def find_foreign(
    out: Path, files: Dict[Path, Tuple[str, int]], seed: int, size: int
) -> Optional[Path]:
    """Return something below out that a run with these arguments would not have written."""
    ours = {*files, *map(_part, files)}
    for path in files:
        ours.update([path.parent, path.parent.parent])
    for path in out.rglob("*"):
        if path not in ours or path.is_symlink():
            return path
    for path, (split, k) in files.items():
        if path.exists() and path.read_bytes() != encode(seed, split, k, size):
            return path
    return None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        if part.exists():
            part.unlink()
        raise


class Parser(argparse.ArgumentParser):
    """Errors of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _integer(least: int, most: int) -> Callable[[str], int]:
    """Return the reader of an argument that is an integer from least to most."""

    def read(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer from {least} to {most}")
        return int(text)

    return read


def _arguments(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Read the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser("make_shapes.py", description=__doc__, formatter_class=formatter)
    count, seed, size = _integer(len(CLASSES), 100_000), _integer(0, 2**32 - 1), _integer(16, 512)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the data set")
    parser.add_argument("--train", metavar="N", type=count, required=True, help="images, in all")
    parser.add_argument("--val", metavar="M", type=count, required=True, help="the same for val/")
    parser.add_argument("--seed", metavar="S", type=seed, required=True, help="0, 1, 2, ...")
    parser.add_argument("--size", metavar="PX", type=size, default=32, help="edge (default: 32)")
    return parser.parse_args(argv)


def _fail(message: str) -> int:
    sys.stderr.write(f"make_shapes.py: error: {message}\n")
    return 1


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Write the data set; return the exit code."""
    args = _arguments(argv)
    files = plan(args.out, {"train": args.train, "val": args.val})
    try:
        foreign = find_foreign(args.out, files, args.seed, args.size)
        if foreign:
            return _fail(f"{foreign} is not of this data set; give an empty or a new folder")
        for path, (split, k) in tqdm(files.items(), unit="image", disable=None):
            if not path.exists():
                write_whole(path, encode(args.seed, split, k, args.size))
    except OSError as error:
        return _fail(f"{error.filename or args.out}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.stderr.write("make_shapes.py: interrupted; repeat the command to go on\n")
        return 130
    counts = f"{args.train} train and {args.val} val images"
    sys.stdout.write(
        f"{args.out}: {counts} of {len(CLASSES)} classes, {args.size}x{args.size} pixels\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
