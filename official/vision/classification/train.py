"""Train a ResNet on a folder of images.

one device     python train.py --data DIR --arch resnet50 --save output
eight GPUs     python train.py --data DIR --arch resnet50 --save output --ngpus 8
two nodes      the same with --world-size 2 --dist-addr HOST --rank 0, and --rank 1 on the other
go on          the same with --resume auto
a recipe       python train.py --data DIR -c resnet50_8xb256-rsb-a2-300e_in1k --save output
what it does   the same with --dry-run

DIR holds one folder of images per class, or train/ and val/ with these, as in ImageNet.
"""

import argparse
import logging
import sys
from dataclasses import replace
from typing import Optional, Sequence

from .data.folder import load_split
from .data.splits import count_trained_on
from .engine import flags
from .engine.console import read_metrics
from .engine.recipe import Recipe, load_recipe, override, parse_recipe, parse_set, stated_preprocess
from .engine.trackers import TRACKERS
from .errors import DataError, UsageError, WeightsError
from .preprocess import Preprocess, parse_preprocess
from .testing.tester import TestConfig, test
from .training.checkpoint import Progress, read_checkpoint
from .training.dry_run import dry_run
from .training.run_folder import RunFolder
from .training.trainer import TrainConfig, train
from .zoo.classes import match_classes
from .zoo.models import arch_of, image_size
from .zoo.rows import BY_NAME
from .zoo.trained import DEFAULT_ARCH, NetworkConfig, Source, look_up

FINE_TUNE = "fine_tune"  # the recipe for weights of other classes
IMAGES_SEEN = 15_000  # by a fine-tuning run, within limits
BETWEEN_TESTS = 1000  # images, of such a run: few take less time to train on than a test does
FEWEST_TESTS = 8  # all the same, where there are so many epochs

logger = logging.getLogger(__name__)


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("train.py", __doc__)
    _add_everyday(parser)
    _add_recipe(parser.add_argument_group("in place of what the recipe says"))
    _add_start(parser.add_argument_group("start"))
    _add_record(parser.add_argument_group("validation, checkpoints and records"))
    flags.add_devices(parser)
    flags.add_list(parser)
    return parser


def _add_everyday(parser: argparse._ActionsContainer) -> None:
    flags.add_data(parser, "train/ and val/")
    parser.add_argument(
        *("-a", "--arch", "--model-name"),
        metavar="NAME",
        help="network or published row (default: the recipe's, else resnet18)",
    )
    parser.add_argument(
        "--pretrained",
        nargs="?",
        const=True,
        default=False,
        metavar="ROW|FILE",
        help="start from the published weights of the network or row, another row's, or a file's, "
        "also by https://… or hf://owner/name; "
        "the classifier starts anew unless the classes have the same names",
    )
    parser.add_argument(
        *("-c", "--config"),
        metavar="RECIPE",
        help="recipe: a name in official/recipes or a YAML file (default: fine_tune for "
        "--pretrained on other classes; else that of the row named by --arch; else "
        "resnet20_cifar_30e for *_cifar networks, default for resnet18 and resnet34, which is 100 "
        "epochs, batch 32, learning rate 0.0125, and default_fbaug for others)",
    )
    parser.add_argument(
        "--epochs",
        type=flags.positive,
        metavar="N",
        help="length of the run; warm-up and milestones keep their share of it",
    )
    flags.add_batch_size(parser, None)
    parser.add_argument(
        *("--lr", "--learning-rate"),
        type=flags.positive_float,
        metavar="LR",
        help="learning rate; the recipe's lr_per says what it is multiplied by (default recipe: "
        "the number of devices)",
    )
    parser.add_argument(
        *("--save", "--save-dir"),
        metavar="DIR",
        default="/data/models",
        help="checkpoints, log and curves go to DIR/<arch> (default: %(default)s)",
    )
    parser.add_argument(
        "--resume",
        metavar="auto|FILE",
        help="go on from a checkpoint; auto: the latest one under --save that is whole, if any",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="at the end, test the best network and write a page on it and on the run into "
        "DIR/<arch>/report",
    )
    flags.add_language(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="do not train: show the recipe, the sizes, an estimate of time and memory, and a "
        "picture of augmented images",
    )
    flags.add_device(parser)
    flags.add_workers(parser)


def _add_recipe(group: argparse._ActionsContainer) -> None:
    group.add_argument("--momentum", type=float, metavar="M", help="of SGD")
    group.add_argument("--weight-decay", type=float, metavar="W", help="of every parameter")
    flags.add_precision(group)
    group.add_argument(
        "--preprocess", metavar="HOW", help="megengine, torchvision, mmpretrain, or YAML or JSON"
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other key, such as --set optimizer.nesterov=true; may be repeated",
    )


def _add_start(group: argparse._ActionsContainer) -> None:
    flags.add_entry(group)
    group.add_argument(
        "--linear-probe",
        action="store_true",
        help="train the classifier only, on features that are computed once: a minute's work",
    )
    group.add_argument(
        "--num-classes", type=flags.positive, metavar="N", help="must be the folder's"
    )
    group.add_argument(
        "--seed", type=flags.natural, default=0, metavar="N", help="of everything (default: 0)"
    )


def _add_record(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--val-share",
        type=flags.share,
        metavar="SHARE",
        help="of each class of the training images to hold out for validation (default: 0.2 where "
        "a folder or list has no images for validation; else none)",
    )
    group.add_argument(
        "--save-every",
        type=flags.positive,
        default=1000,
        metavar="N",
        help="steps between two checkpoints within an epoch (default: %(default)s)",
    )
    group.add_argument(
        "--keep",
        type=flags.positive,
        default=2,
        metavar="K",
        help="checkpoints that stay, beside the best weights (default: %(default)s)",
    )
    group.add_argument(
        "--log",
        action="append",
        choices=TRACKERS,
        default=[],
        help="send the metrics there as well, by the tracker's own package; may be repeated",
    )
    group.add_argument("--tensorboard", action="store_true", help="the same as --log tensorboard")
    flags.add_skip_broken(group)
    flags.add_print_freq(group)


def recipe_of(
    args: argparse.Namespace, source: Optional[Source] = None, before: Optional[Progress] = None
) -> Recipe:
    """The recipe with what the weights and the flags put in its place.

    Args:
        source: the weights that training starts from. Images are prepared as they need it, where
            neither a flag nor the recipe that --config names says otherwise.
        before: the run that is gone on with, in whose place no weights are looked up.
    """
    arch = args.arch or (source.config.arch if source else None)
    if args.config:
        recipe = load_recipe(args.config)
    elif before:
        recipe = parse_recipe(before.recipe, args.resume)
    else:
        fine_tuning = _fine_tuning(args, source) if source else None
        recipe = fine_tuning or load_recipe(_usual_recipe(arch))
    if args.epochs:
        recipe = recipe.with_epochs(args.epochs)
    preprocess = recipe.preprocess
    if before:
        preprocess = before.preprocess
    elif source:
        preprocess = _prepared_for(source, args.config)
    named = args.arch or recipe.arch or arch
    changes = {
        "arch": arch_of(named) if named else DEFAULT_ARCH,
        "batch_size": args.batch_size,
        "optimizer.lr": args.lr,
        "optimizer.momentum": args.momentum,
        "optimizer.weight_decay": args.weight_decay,
        "precision": args.precision,
        "probe": args.linear_probe or None,
        "preprocess": preprocess.override(
            parse_preprocess(args.preprocess) if args.preprocess else {}
        ),
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    return override(override(recipe, changes), dict(map(parse_set, args.set)))


def _fine_tuning(args: argparse.Namespace, source: Source) -> Optional[Recipe]:
    """The recipe for images of other classes than the weights', by their names; None for the same.

    It takes as many epochs as are wanted, or as the number of images calls for. Not all of a few
    images' are tested, and their batches are smaller.
    """
    try:
        images = load_split(args.data, "train")
    except DataError:
        return None  # which is said by whoever needs the data
    found, known = images.classes, source.config.classes
    if known is not None and len(known) == len(found) and match_classes(found, known) is not None:
        return None
    epochs = args.epochs or min(30, max(4, round(IMAGES_SEEN / len(images))))
    every = max(1, min(-(-epochs // FEWEST_TESTS), BETWEEN_TESTS // len(images)))
    recipe = load_recipe(FINE_TUNE).with_epochs(epochs)
    changes = {"test_every": every}
    if args.batch_size is None:
        count = count_trained_on(args.data, images, args.val_share)
        fewest, usual = count // flags.topology(args).processes, recipe.batch_size
        if 0 < fewest < usual:
            changes["batch_size"] = size = 1 << (fewest.bit_length() - 1)
            logger.warning("batches of %d images, not %d: %d are trained on", size, usual, count)
    return override(recipe, changes)


def _prepared_for(source: Source, recipe: Optional[str]) -> Preprocess:
    """How images are prepared for these weights, but for what ``recipe`` states."""
    needed = source.config.preprocess
    stated = stated_preprocess(recipe) if recipe else {}
    used = Preprocess.from_dict({**needed.to_dict(), **stated})
    differing = [
        f"{key} {getattr(used, key)} instead of {getattr(needed, key)}"
        for key in ("order", "mean", "std")
        if getattr(used, key) != getattr(needed, key)
    ]
    if differing:
        logger.warning(
            "the recipe %s prepares images otherwise than %s needs: %s; take these keys out of the "
            "recipe, or set them with --preprocess, to follow the weights",
            *(recipe, source.config.source, ", ".join(differing)),
        )
    return used


def _usual_recipe(name: Optional[str]) -> str:
    """The recipe for a network or row that none is named for."""
    row = BY_NAME.get(name or "")
    if row is not None and row.recipe:
        return row.recipe
    arch = arch_of(name or DEFAULT_ARCH)
    if image_size(arch) == 32:
        return "resnet20_cifar_30e"
    return "default" if arch in ("resnet18", "resnet34") else "default_fbaug"


def weights_of(args: argparse.Namespace) -> Optional[NetworkConfig]:
    """Which weights --pretrained means; None without it.

    Without a name they are those of the published row that --arch or --config names, and else the
    network's first row.
    """
    if args.pretrained is False:
        return None
    recipe = load_recipe(args.config) if args.config else None
    arch = args.arch or (recipe.arch if recipe else None)
    model = args.pretrained
    if model is True:
        rows = [row for row in BY_NAME.values() if args.config and row.recipe == args.config]
        fitting = [row.name for row in rows if not arch or row.arch == arch_of(arch)]
        model = fitting[0] if fitting and args.arch not in BY_NAME else None
    return NetworkConfig(arch, model, average=args.average, entry=args.entry)


def _resumed(args: argparse.Namespace, arch: str) -> Optional[Progress]:
    """The run that is gone on with; None where there is none, or it cannot be read."""
    for path in RunFolder(args.save, arch, args.resume).resume_from:
        try:
            return read_checkpoint(path)[0]
        except WeightsError:
            continue  # the trainer says so, and takes the one before
    return None


def config_of(args: argparse.Namespace) -> TrainConfig:
    """The run that the flags mean."""
    weights = weights_of(args)
    if args.linear_probe and not weights:
        raise UsageError("--linear-probe needs the features of trained weights: give --pretrained")
    source = before = None
    if weights:
        # Of a run that goes on, the weights are in its checkpoint; their file may have gone.
        before = _resumed(args, arch_of(weights.arch or DEFAULT_ARCH)) if args.resume else None
        source = None if before else look_up(weights)
    recipe = recipe_of(args, source, before)
    if weights and arch_of(weights.arch or DEFAULT_ARCH) != recipe.arch:
        weights = replace(weights, arch=recipe.arch)
    return TrainConfig(
        data=args.data,
        arch=recipe.arch or DEFAULT_ARCH,
        recipe=recipe,
        save=args.save,
        topology=flags.topology(args),
        device=args.device,
        workers=args.workers,
        resume=args.resume,
        seed=args.seed,
        weights=weights,
        num_classes=args.num_classes,
        print_freq=args.print_freq,
        save_every=args.save_every,
        keep=args.keep,
        trackers=tuple(dict.fromkeys(args.log + ["tensorboard"] * args.tensorboard)),
        linear_probe=args.linear_probe,
        val_share=args.val_share,
        skip_broken=args.skip_broken,
    )


def start(args: argparse.Namespace) -> int:
    """Train as the flags say."""
    config = config_of(args)
    if args.dry_run:
        return dry_run(config)
    code = train(config)
    return report_on(config, args.lang) if args.report and code == 0 else code


def report_on(config: TrainConfig, language: Optional[str]) -> int:
    """Test the best network of a run that has ended, and write its page.

    The images are those that the best epoch was not chosen by, if there are any. Of several nodes
    the first does it.
    """
    if config.topology.node != 0:
        return 0
    folder = RunFolder(config.save, config.arch, None)
    tested = any(row["event"] == "test" for row in read_metrics(folder.path))
    return test(
        TestConfig(
            data=config.data,
            network=NetworkConfig(model=str(folder.best)),
            topology=replace(config.topology, nodes=1),
            device=config.device,
            workers=config.workers,
            print_freq=config.print_freq,
            report=str(folder.path / "report"),
            split="test" if tested else None,
            skip_broken=config.skip_broken,
            language=language,
        )
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
