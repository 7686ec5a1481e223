#!/usr/bin/env python3
"""Train a ResNet on a folder of images.

one device     python train.py --data DIR --arch resnet50 --save output
eight GPUs     python train.py --data DIR --arch resnet50 --save output --ngpus 8
two nodes      the same with --world-size 2 --dist-addr HOST --rank 0, and --rank 1 on the other
go on          the same with --resume auto
a recipe       python train.py --data DIR -c resnet50_fbaug_in1k --arch resnet50

DIR holds train/ and val/ with one folder of images per class, as in ImageNet.
"""

import argparse
import sys
from typing import Optional, Sequence

from official.vision.classification.engine import flags
from official.vision.classification.engine.recipe import Recipe, load_recipe, override
from official.vision.classification.engine.trainer import TrainConfig, train
from official.vision.classification.preprocess import parse_preprocess
from official.vision.classification.zoo.cards import BY_NAME
from official.vision.classification.zoo.models import arch_of


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("train.py", __doc__)
    flags.add_data(parser, "train/ and val/")
    parser.add_argument(
        "-a",
        "--arch",
        "--model-name",
        metavar="NAME",
        default="resnet18",
        help="network (default: resnet18)",
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="RECIPE",
        help="recipe: a name in official/recipes or a YAML file (default: default for resnet18 and "
        "resnet34, default_fbaug for other networks: 100 epochs, batch 32, learning rate 0.0125)",
    )
    parser.add_argument(
        "--save",
        "--save-dir",
        metavar="DIR",
        default="/data/models",
        help="checkpoints, log and curves go to DIR/<arch> (default: %(default)s)",
    )
    parser.add_argument(
        "--resume",
        metavar="auto|FILE",
        help="go on from a checkpoint; auto: the one under --save, if there is one",
    )
    recipe = parser.add_argument_group("in place of what the recipe says")
    recipe.add_argument(
        "--epochs",
        type=flags.positive,
        metavar="N",
        help="length of the run; warm-up and milestones keep their share of it",
    )
    recipe.add_argument(
        "-b", "--batch-size", type=flags.positive, metavar="N", help="images per device and step"
    )
    recipe.add_argument(
        "--lr",
        "--learning-rate",
        type=flags.positive_float,
        metavar="LR",
        help="learning rate; the recipe's lr_per says what it is multiplied by (default recipe: "
        "the number of devices)",
    )
    recipe.add_argument("--momentum", type=float, metavar="M", help="of SGD")
    recipe.add_argument("--weight-decay", type=float, metavar="W", help="of every parameter")
    recipe.add_argument(
        "--preprocess", metavar="HOW", help="megengine, torchvision, mmpretrain, or YAML or JSON"
    )
    start = parser.add_argument_group("start")
    start.add_argument(
        "--pretrained",
        nargs="?",
        const=True,
        default=False,
        metavar="ROW|FILE",
        help="start from the published weights, another row's or a file's, with a new classifier",
    )
    start.add_argument(
        "--num-classes", type=flags.positive, metavar="N", help="must be the folder's"
    )
    start.add_argument(
        "--seed", type=flags.natural, default=0, metavar="N", help="of everything (default: 0)"
    )
    flags.add_devices(parser)
    flags.add_workers(parser)
    return parser


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe with what the flags put in its place."""
    small = arch_of(args.arch) in ("resnet18", "resnet34")
    recipe = load_recipe(args.config or ("default" if small else "default_fbaug"))
    if args.epochs:
        recipe = recipe.with_epochs(args.epochs)
    preprocess = parse_preprocess(args.preprocess) if args.preprocess else {}
    changes = {
        "batch_size": args.batch_size,
        "optimizer.lr": args.lr,
        "optimizer.momentum": args.momentum,
        "optimizer.weight_decay": args.weight_decay,
        "preprocess": recipe.preprocess.override(preprocess),
    }
    return override(recipe, {key: value for key, value in changes.items() if value is not None})


def start(args: argparse.Namespace) -> int:
    """Train as the flags say."""
    row = args.arch if args.arch in BY_NAME else None
    return train(
        TrainConfig(
            data=args.data,
            arch=arch_of(args.arch),
            recipe=recipe_of(args),
            save=args.save,
            topology=flags.topology(args),
            device=args.device,
            workers=args.workers,
            resume=args.resume,
            seed=args.seed,
            pretrained=row if args.pretrained is True and row else args.pretrained,
            num_classes=args.num_classes,
            print_freq=args.print_freq,
        )
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
