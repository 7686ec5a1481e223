"""Which processes a job has, by flags and schedulers, and what all of them must have in common.

Flags, versions and code are compared when a node joins, before any rank starts; the images by the
ranks, before the first step.
"""

import argparse
import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Dict

import cv2
import megengine
import numpy as np

from .. import __version__
from ..data.dataset import ImageDataset
from ..distributed.collectives import world_size
from ..distributed.consistency import require_same_run, require_same_value
from ..distributed.launch import Topology
from ..distributed.schedulers import PORT, Place, place_of
from ..errors import DataError, UsageError
from ..text import printable

logger = logging.getLogger(__name__)

# What may differ between nodes: where files are, and what only rank 0 does. Data sets are compared
# by their images, and --device by what it comes to.
_OF_ONE_NODE = frozenset(
    "data data_path save report json keep tensorboard workers debug device distribute dist_addr "
    "dist_port dist_secret dist_timeout rank world_size ngpus list min_top1 dry_run".split()
)
_HOST = re.compile(r"[\w.-]{1,253}", re.ASCII)
_SHOWN = 100  # letters of a value
_COMPARED = 16  # images of a data set whose content is compared
_SOURCES = (".py", ".yaml", ".cpp", ".h")


def topology(args: argparse.Namespace) -> Topology:
    """Which processes the flags ask for; without flags on nodes, what a scheduler's variables say.

    Raises:
        UsageError: when the variables make no sense, or do not go with the flags.
    """
    if not args.distribute:
        return Topology()
    given = (args.world_size, args.rank)
    place = place_of(os.environ) if given == (None, None) else None
    if place is None:
        _remark_on_idle_nodes(given != (None, None))
        place = Place("", args.world_size or 1, args.rank or 0, "localhost", PORT)
    else:
        if place.locals > 1:
            _take_own_device(place, args.ngpus)
        logger.warning(
            "by the variables of %s this is node %d of %d, and node 0 is %s, port %d",
            *(place.scheduler, place.node, place.nodes),
            *(args.dist_addr or place.address, args.dist_port or place.port),
        )
    address = args.dist_addr or place.address
    if not _HOST.fullmatch(address):
        raise UsageError(
            f"--dist-addr {address}: expected a host's name or an address such as 10.0.0.1"
        )
    return Topology(
        ngpus=args.ngpus,
        nodes=place.nodes,
        node=place.node,
        address=address,
        port=args.dist_port or place.port,
        timeout=args.dist_timeout,
        secret=args.dist_secret,
        settings=settings_of(args) if place.nodes > 1 else {},
    )


def _remark_on_idle_nodes(is_asked_for: bool) -> None:
    if is_asked_for or "SLURM_STEP_NODELIST" in os.environ:  # a step has the nodes it wants
        return
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "")
    if nodes.isdecimal() and nodes not in ("0", "1"):
        logger.warning(
            "Slurm has given this job %s nodes, and without srun only this one is used; see "
            "docs/slurm.md",
            nodes,
        )


def _take_own_device(place: Place, ngpus: int) -> None:
    """Let this process see one GPU, where several processes on a machine see all of them."""
    if ngpus > 1:
        raise UsageError(
            f"--ngpus {ngpus}: {place.scheduler} has started {place.locals} processes on this "
            "machine, each for one device; leave the flag out, or start one process on each machine"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = list(map(str, range(place.locals))) if visible is None else visible.split(",")
    if len(devices) >= place.locals:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[place.local]


def settings_of(args: argparse.Namespace) -> Dict[str, str]:
    """What must be the same on all nodes, by the name that the user knows it by."""
    values = {
        "--" + name.replace("_", "-"): _meaning(value)
        for name, value in vars(args).items()
        if name not in _OF_ONE_NODE
    }
    return {
        **values,
        "this project's version": f"{__version__}, code {_digest_of_code()[:8]}",
        "MegEngine's version": megengine.__version__,
        "numpy's version": np.__version__,
        "OpenCV's version": cv2.__version__,
        "RESNET_KERNELS": os.environ.get("RESNET_KERNELS", "native"),
    }


def _meaning(value: object) -> str:
    """A flag's value as a line of text; of a file, what is in it: paths may differ."""
    if value is None or value is False:
        return "not given"
    if isinstance(value, str) and Path(value).is_file():
        return f"a file of sha256 {_digest_of_file(Path(value))[:16]}"
    text = printable(str(value))
    if len(text) > _SHOWN:
        return f"{text[:_SHOWN]}… (sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]})"
    return text


def _digest_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while True:
                piece = file.read(1 << 20)
                if not piece:
                    return digest.hexdigest()
                digest.update(piece)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _digest_of_code() -> str:
    """Of what computes: the package and its recipes."""
    root = Path(__file__).resolve().parents[3]
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.suffix in _SOURCES):
        digest.update(f"{path.relative_to(root)} {_digest_of_file(path)}\0".encode())
    return digest.hexdigest()


def require_same_images(**sets: ImageDataset) -> None:
    """Make sure that all ranks have the same images: names, labels, and the content of a few.

    Args:
        sets: images by what messages call them, such as ``training``.

    Raises:
        TrainingError: naming what differs, on every rank.
    """
    if world_size() > 1:
        for which, images in sets.items():
            _compare(which, images)


def _compare(which: str, images: ImageDataset) -> None:
    require_same_value(f"the number of {which} images", len(images))
    require_same_run(f"the list of classes of the {which} images", images.classes)
    base = images.root if images.root.is_dir() else images.root.parent
    names = (os.path.relpath(path, base) for path in images.paths)
    labels = hashlib.sha256(images.labels.tobytes()).hexdigest()
    require_same_run(f"the list of {which} images and their classes", [*names, labels])
    few = np.linspace(0, len(images) - 1, min(_COMPARED, len(images))).astype(int)
    contents = [_content(images, index) for index in few.tolist()]
    require_same_run(f"the content of the {which} images", contents)


def _content(images: ImageDataset, index: int) -> str:
    try:
        return hashlib.sha256(images.content(index)).hexdigest()
    except DataError:
        return ""  # which is said by whoever needs it
