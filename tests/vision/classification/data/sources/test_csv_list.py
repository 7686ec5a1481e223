import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
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
    path = written(tmp_path / "l.csv", "1.jpg,a\n")
    assert refusal(path, "train").startswith(": has no column split; add one")
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
    "an unknown split": ("1,a,train\n2,a,dev\n", "line 2: split is 'dev'; expected train, val"),
    "an unknown column": ("path,label,size\n", "has columns (path, label, size); expected path"),
    "a column twice": ("path,label,label\n", "has columns (path, label, label); expected path"),
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
