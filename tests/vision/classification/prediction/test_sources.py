import os

import pytest

from official.vision.classification.errors import DataError
from official.vision.classification.prediction.sources import find_images, is_one_file


@pytest.fixture()
def photos(tmp_path, monkeypatch):
    """A working folder with photos/, which has images, other files and hidden ones."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("photos/b.jpg", "photos/a.PNG", "photos/notes.txt", "photos/.hidden.jpg"),
        *("photos/cats/2.jpeg", "photos/cats/10.webp", "photos/.cache/3.jpg"),
        *("photos/dogs/old/x.jpg", "other/x.jpg", "one[1].jpg"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def paths(*sources):
    return [image.path for image in find_images(sources)]


def names(*sources):
    return [image.name for image in find_images(sources)]


def test_a_folder_gives_what_is_in_it_and_below_in_order(photos):
    own = ["a.PNG", "b.jpg", "cats/10.webp", "cats/2.jpeg", "dogs/old/x.jpg"]
    assert names("photos") == own
    assert paths("photos") == [f"photos/{name}" for name in own]
    assert paths("photos/") == [f"photos/{name}" for name in own]


def test_patterns(photos):
    assert paths("photos/*") == ["photos/a.PNG", "photos/b.jpg"]
    assert paths("photos/**/*.jp*g") == [
        *("photos/b.jpg", "photos/cats/2.jpeg", "photos/dogs/old/x.jpg")
    ]
    assert names("*/x.jpg", "photos/?.jpg") == ["x.jpg", "b.jpg"]


def test_a_file_may_look_like_a_pattern(photos):
    assert paths("one[1].jpg") == ["one[1].jpg"]
    assert is_one_file(["one[1].jpg"])


def test_files_in_the_order_given_even_where_there_are_none(photos):
    assert paths("photos/b.jpg", "no.jpg", "photos/cats") == [
        *("photos/b.jpg", "no.jpg", "photos/cats/10.webp", "photos/cats/2.jpeg")
    ]


@pytest.mark.parametrize(
    ("sources", "one"),
    [
        (["photos/b.jpg"], True),
        (["no.jpg"], True),
        (["photos"], False),
        (["photos/dogs"], False),  # though there is one in it
        (["photos/b.*"], False),
        (["photos/b.jpg", "photos/a.PNG"], False),
    ],
)
def test_one_file_is_one_that_is_named(photos, sources, one):
    assert is_one_file(sources) == one


@pytest.mark.parametrize("source", ["empty", "photos/*.tiff", "photos/*.txt"])
def test_no_image(photos, source):
    (photos / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        find_images([source])
    assert str(caught.value).startswith(
        f"{source}: no images; expected files ending in .avif, .bmp, "
    )


def test_linked_folders_are_entered_once(photos):
    (photos / "photos" / "cats" / "again").symlink_to(photos / "photos")
    (photos / "photos" / "linked").symlink_to(photos / "other")
    assert names("photos")[-1] == "linked/x.jpg"
    assert len(names("photos")) == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(photos):
    (photos / "photos" / "cats").chmod(0)
    with pytest.raises(DataError, match="photos/cats: cannot be read: Permission denied"):
        find_images(["photos"])
    (photos / "photos" / "cats").chmod(0o700)
