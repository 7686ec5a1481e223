"""The pictures of single images, with what is said of them."""

from typing import List, Sequence
from xml.etree.ElementTree import Element

from ...data.dataset import ImageDataset
from ...distributed.heartbeat import with_heartbeats
from .answers import Answers
from .gallery import FIRST, thumbnail
from .markup import tag

_GUESSES = 3  # told of each image


def cards(
    chosen: Sequence[int], folder: ImageDataset, answers: Answers, names: Sequence[str]
) -> List[Element]:
    """A card for each of the images ``chosen``; those after the 24th wait for the filter.

    Raises:
        DataError: naming the image, when it cannot be read any more.
    """
    return [
        _card(index, place >= FIRST, folder, answers, names)
        for place, index in enumerate(with_heartbeats(chosen))
    ]


def _card(
    index: int, further: bool, folder: ImageDataset, answers: Answers, names: Sequence[str]
) -> Element:
    label, guess = int(answers.labels[index]), int(answers.guesses[index])
    right = label == guess
    truth, path = names[label], folder.paths[index]
    alt = f"{truth}, named {'right' if right else names[guess]}"
    best = zip(answers.classes[index, :_GUESSES], answers.probabilities[index, :_GUESSES])
    guesses = [
        tag(
            "li",
            tag("span", names[number], class_="name"),
            " ",
            tag("span", f"{100 * probability:.1f} %", class_="share"),
            class_="truth" if number == label else None,
        )
        for number, probability in best
    ]
    return tag(
        "li",
        tag(
            "figure",
            tag("img", src=thumbnail(folder.read(index)), alt=alt, title=path),
            tag(
                "figcaption",
                tag("p", "✓ " if right else "✗ ", truth, class_="right" if right else "wrong"),
                tag("ol", *guesses),
                tag("p", path.rpartition("/")[2], class_="file", title=path),
            ),
        ),
        class_="further" if further else None,
        data_label=label,
        data_guess=guess,
    )
