import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.data.sources.csv_list import columns_read
from official.vision.classification.errors import DataError
from official.vision.classification.readers import text_file


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def content(folder):
    """Paths below the list's folder with the names of their classes."""
    root = f"{folder.root.parent}/"
    assert all(path.startswith(root) for path in folder.paths)
    return [(p[len(root) :], folder.classes[c]) for p, c in zip(folder.paths, folder.labels)]


def refusal(path, split="val"):
    with pytest.raises(DataError) as caught:
        load_split(path, split)
    message = str(caught.value)
    assert message.startswith(f"{path}") and "\n" not in message and len(message) < 500
    return message[len(str(path)) :]


FORMS = {
    "plain": "b/1.jpg,dog\na 2.jpg,cat\nc.png,dog\n",
    "no last line end": "b/1.jpg,dog\na 2.jpg,cat\nc.png,dog",
    "named columns": "path,label\nb/1.jpg,dog\na 2.jpg,cat\nc.png,dog\n",
    "columns the other way round": "Label,Path\ndog,b/1.jpg\ncat,a 2.jpg\ndog,c.png\n",
    "as Windows writes it": "\ufeffb/1.jpg,dog\r\na 2.jpg,cat\r\nc.png,dog\r\n",
    "spaces and empty lines": "\n b/1.jpg ,  dog\n,\na 2.jpg, cat \n\nc.png,dog\n",
    "quotes": '"b/1.jpg","dog"\n"a 2.jpg",cat\nc.png, "dog"\n',
}


HEADS = {
    "pandas": ",filename,width,class\n0,b/1.jpg,7,dog\n1,a 2.jpg,8,cat\n2,c.png,,dog\n",
    "semicolons": "Image;Category\nb/1.jpg;dog\na 2.jpg;cat\nc.png;dog\n",
    "semicolons without names": "b/1.jpg;dog\na 2.jpg;cat\nc.png;dog\n",
    "tabs": "file\tlabel\tnote\nb/1.jpg\tdog\t,;\na 2.jpg\tcat\t\nc.png\tdog\t\n",
    "quoted": '"image_path";"class name"\n"b/1.jpg";"dog"\n"a 2.jpg";"cat"\n"c.png";"dog"\n',
    "the label is the other column": "image,Id\nb/1.jpg,dog\na 2.jpg,cat\nc.png,dog\n",
    "the path is the other column": "dog?,label\nb/1.jpg,dog\na 2.jpg,cat\nc.png,dog\n",
    "pandas, the label is the other one": ",image,x\n0,b/1.jpg,dog\n1,a 2.jpg,cat\n2,c.png,dog\n",
    "diagnoses": "id_code,diagnosis\nb/1.jpg,dog\na 2.jpg,cat\nc.png,dog\n",
    "Kaggle": "class id,filepaths,labels\n1,b/1.jpg,dog\n0,a 2.jpg,cat\n1,c.png,dog\n",
}


@pytest.mark.parametrize("form", HEADS)
@pytest.mark.parametrize("name", ["l.csv", "l.txt", "l.tsv"])
def test_columns_as_people_call_them(tmp_path, form, name):
    folder = load_split(written(tmp_path / name, HEADS[form]), "val")
    assert content(folder) == [("b/1.jpg", "dog"), ("a 2.jpg", "cat"), ("c.png", "dog")]


def test_a_class_may_be_called_class(tmp_path):
    path = written(tmp_path / "l.csv", "1.jpg,class\n2.jpg,label\n")
    assert content(load_split(path, "val")) == [("1.jpg", "class"), ("2.jpg", "label")]


def test_names_with_semicolons_do_not_separate_columns(tmp_path):
    path = written(tmp_path / "l.csv", "1;2.jpg,a;b;c\n3.jpg,d\n")
    assert content(load_split(path, "val")) == [("1;2.jpg", "a;b;c"), ("3.jpg", "d")]


def test_which_columns_count_is_said(tmp_path):
    def said(text):
        return columns_read(written(tmp_path / "l.csv", text))

    assert said("1.jpg,a\n") == said("path,label,split\n1.jpg,a,val\n") == ""
    assert said("image,label,class\n1.jpg,3,a\n") == (
        "list: path from 'image', label from 'label'; not read: 'class'"
    )


class TestListsOfMMPreTrain:
    """Its ``CustomDataset``: ``ann_file='meta/train.txt', data_prefix='train'``."""

    def images(self, root, *names):
        for name in names:
            written(root / name, "")

    def test_class_folders_for_training_and_a_flat_folder_for_validation(self, tmp_path):
        """As ImageNet is laid out there."""
        self.images(tmp_path, "train/n02/a b.JPEG", "train/n01/c.JPEG", "val/1.JPEG", "val/2.JPEG")
        written(tmp_path / "meta/train.txt", "n01/c.JPEG 0\nn02/a b.JPEG 1\n")
        written(tmp_path / "meta/val.txt", "1.JPEG 1\n2.JPEG 0\n")
        train, val = load_split(tmp_path, "train"), load_split(tmp_path, "val")
        assert train.classes == val.classes == ("n01", "n02")
        assert train.paths == (f"{tmp_path}/train/n01/c.JPEG", f"{tmp_path}/train/n02/a b.JPEG")
        assert val.paths == (f"{tmp_path}/val/1.JPEG", f"{tmp_path}/val/2.JPEG")
        assert (train.labels.tolist(), val.labels.tolist()) == ([0, 1], [1, 0])
        (tmp_path / "meta/train.txt").unlink()  # the folders say the same
        val = load_split(tmp_path, "val")
        assert val.classes == ("n01", "n02") and val.labels.tolist() == [1, 0]
        assert load_split(tmp_path, "train").classes == ("n01", "n02")

    def test_numbers_alone(self, tmp_path):
        self.images(tmp_path, "x/1.jpg", "x/2.jpg", "x/3.jpg")
        path = written(tmp_path / "list.txt", "x/1.jpg 10\nx/2.jpg 9\n\nx/3.jpg 10\n")
        images = load_split(path, "train")
        assert images.classes == ("9", "10") and images.labels.tolist() == [1, 0, 1]
        assert images.paths[0] == f"{tmp_path}/x/1.jpg"

    def test_one_list_of_several(self, tmp_path):
        self.images(tmp_path, "train/1.jpg", "val/1.jpg")
        path = written(tmp_path / "meta/val.txt", "1.jpg 0\n")
        assert load_split(path, "val").paths == (f"{tmp_path}/val/1.jpg",)

    def test_rows_that_are_none(self, tmp_path):
        path = written(tmp_path / "l.txt", "1.jpg 0\n2.jpg\n")
        assert refusal(path).startswith(": line 2 has '2.jpg'; expected a path, a space")
        assert refusal(written(tmp_path / "l.txt", " \n")).startswith(": names no image")


@pytest.mark.parametrize("form", FORMS)
def test_rows(tmp_path, form):
    path = written(tmp_path / "list.CSV", FORMS[form])
    folder = load_split(str(path), "val")
    assert folder.classes == ("cat", "dog") and folder.labels.dtype == np.int32
    assert content(folder) == [("b/1.jpg", "dog"), ("a 2.jpg", "cat"), ("c.png", "dog")]


def test_commas_quotes_and_other_alphabets_in_names(tmp_path):
    rows = [("a, b.jpg", 'say "é"'), ("漢.jpg", "字"), ("one\u2028line\x0b.jpg", "x\x85y")]
    text = "".join('"{}","{}"\n'.format(*(cell.replace('"', '""') for cell in row)) for row in rows)
    assert content(load_split(written(tmp_path / "l.csv", text), "val")) == rows


def test_a_path_from_the_root_stays_as_it_is(tmp_path):
    path = written(tmp_path / "l.csv", "/somewhere/1.jpg,a\n../2.jpg,a\n")
    assert load_split(path, "val").paths == ("/somewhere/1.jpg", f"{tmp_path}/../2.jpg")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("10", "9", "1"), ("1", "9", "10")),
        (("10", "9", "x"), ("10", "9", "x")),
        (("07", "7", "1"), ("1", "07", "7")),
    ],
)
def test_labels_that_are_numbers_are_in_their_order(tmp_path, labels, classes):
    path = written(tmp_path / "l.csv", "".join(f"{i}.jpg,{n}\n" for i, n in enumerate(labels)))
    folder = load_split(path, "val")
    assert folder.classes == classes
    assert [folder.classes[label] for label in folder.labels] == list(labels)


SPLIT = "path,label,split\n1,b,train\n2,a,val\n3,c,train\n4,b,test\n5,a,train\n"


@pytest.mark.parametrize("text", [SPLIT, SPLIT.split("\n", 1)[1]])
def test_a_column_of_splits(tmp_path, text):
    path = written(tmp_path / "l.csv", text)
    train, val = load_split(path, "train"), load_split(path, "val")
    assert train.classes == val.classes == ("a", "b", "c")
    assert content(train) == [("1", "b"), ("3", "c"), ("5", "a")]
    assert content(val) == [("2", "a")]  # val comes before test
    path = written(tmp_path / "l.csv", text.replace("val", "test"))
    assert content(load_split(path, "val")) == [("2", "a"), ("4", "b")]


def test_a_list_for_each_split(tmp_path):
    written(tmp_path / "train.csv", "1.jpg,b\n2.jpg,a\n")
    written(tmp_path / "test.csv", "3.jpg,a\n")
    assert content(load_split(tmp_path, "train")) == [("1.jpg", "b"), ("2.jpg", "a")]
    assert content(load_split(tmp_path, "val")) == [("3.jpg", "a")]
    written(tmp_path / "val.csv", "4.jpg,b\n")
    val = load_split(tmp_path, "val")
    assert content(val) == [("4.jpg", "b")] and val.classes == ("b",)
    assert val.relabel(("a", "b")).labels.tolist() == [1]
    (tmp_path / "train.csv").unlink()
    assert refusal(tmp_path, "train").startswith("/train.csv: cannot be read: No such file")


def test_splits_that_are_not_there(tmp_path):
    path = written(tmp_path / "l.csv", "1.jpg,a\n2.jpg,b\n")
    for split in ("train", "val"):  # it serves for both, and splits.py holds images out
        assert content(load_split(path, split)) == [("1.jpg", "a"), ("2.jpg", "b")]
    path = written(tmp_path / "l.csv", "1.jpg,a,train\n")
    assert refusal(path, "val") == ": has no row whose split is val or test"
    path = written(tmp_path / "l.csv", "1.jpg,a,val\n")
    assert refusal(path, "train") == ": has no row whose split is train"
    written(tmp_path / "val.csv", "1.jpg,a,val\n")
    assert refusal(tmp_path).startswith("/val.csv: has a column split; give the list itself")


WRONG = {
    "nothing": ("", "names no image"),
    "only names of columns": ("path,label\n", "names no image"),
    "one column": ("1.jpg\n", "line 1 has (1.jpg); expected path,label"),
    "four columns": ("1.jpg,a,train,x\n", "line 1 has (1.jpg, a, train, …); expected path,label"),
    "a missing cell": ("1.jpg,a\n2.jpg\n", "line 2 has (2.jpg); expected path,label"),
    "an empty label": ("1.jpg,a\n\n2.jpg,\n", "line 3 has (2.jpg, ); expected path,label"),
    "an empty path": ("1.jpg,a\n ,b\n", "line 2 has (, b); expected path,label"),
    "a cell too much": ("1.jpg,a\n2.jpg,b,c\n", "line 2 has (2.jpg, b, c); expected path,label"),
    "an unknown split": ("1,a,train\n2,a,new\n", "line 2: split is 'new'; expected train, val"),
    "no column of labels": ("path,x,y\n", "has columns (path, x, y); expected one each of path"),
    "no column of paths": ("x,label,y\n", "has columns (x, label, y); expected one each of path"),
    "a column twice": ("path,label,label\n", "has columns (path, label, label); expected one each"),
    "quotes that do not end": ('1.jpg,a\n"2.jpg,b\n', "line 2 is not CSV: unexpected end"),
    "a cell without end": (f"1.jpg,{'a' * 200_000}\n", "line 1 is not CSV: field larger"),
    "a null character": ("1\0.jpg,a\n", "holds a null character"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_list(tmp_path, case):
    text, reason = WRONG[case]
    message = refusal(written(tmp_path / "l.csv", text))
    assert message.startswith(f": {reason}")


def test_a_list_that_is_too_long_or_no_text(tmp_path, monkeypatch):
    (tmp_path / "l.csv").write_bytes(b"\xff\xfe1\0.\0j\0p\0g\0,\0a\0")
    assert refusal(tmp_path / "l.csv") == ": is no text in UTF-8"
    monkeypatch.setattr(text_file, "MAX_BYTES", 7)
    assert load_split(written(tmp_path / "l.csv", "1.jpg,a"), "val").classes == ("a",)
    assert refusal(written(tmp_path / "l.csv", "1.jpg,ab")).startswith(": has more than 7 bytes")
