"""What a file of another project says of its classes, where it is plain data."""

from typing import Dict, Iterator, Optional, Tuple

from ..readers import Contents
from ..readers.foreign import Foreign
from .classes import standard_names
from .entries import dicts

# Where class names are looked for: a list of names, index -> name, or name -> index.
_KEYS = """
    classes CLASSES class_names classnames label_names labels categories class_to_idx idx_to_class
    id2label label2id index_to_class idx2label
""".split()
MAX_CLASSES = 100_000


def classes_of(contents: Contents, count: Optional[int]) -> Optional[Tuple[str, ...]]:
    """The first list of ``count`` different class names in the file, in the order of the logits.

    MMPreTrain has them in ``meta.dataset_meta.classes``, before in ``meta.CLASSES``; in PyTorch's
    tutorials they are the ``class_to_idx`` of a folder; Lightning has them in its hyperparameters.
    """
    if count is None or not isinstance(contents.value, (dict, Foreign)):
        return None
    for _, values in dicts(contents.value):
        for key in _KEYS:
            names = class_list(values.get(key), count)
            if names is not None:
                return names
    return None


def class_list(value: object, count: int) -> Optional[Tuple[str, ...]]:
    """``value`` as ``count`` different names in the order of the logits, None if it is no such."""
    if isinstance(value, dict) and len(value) == count <= MAX_CLASSES:
        by_index = dict(_indexed(value))
        value = [by_index.get(index) for index in range(count)]
    if not isinstance(value, (list, tuple)) or len(value) != count:
        return None
    names = tuple(name for name in value if isinstance(name, str) and name.isprintable())
    if len(names) < count:
        return None
    if len(set(names)) < count:  # as ImageNet's two cranes in MMPreTrain
        names = standard_names(names)
    return names if len(set(names)) == count else None


def _indexed(value: Dict[object, object]) -> Iterator[Tuple[int, object]]:
    """(index, name), whichever of the two is the key."""
    for key, other in value.items():
        if type(other) is int and isinstance(key, str):
            yield other, key
        elif isinstance(other, str) and isinstance(key, (int, str)) and str(key).isdecimal():
            yield int(str(key)[:9]), other
