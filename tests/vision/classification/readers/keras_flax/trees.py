"""Nested contents as one dict."""

from official.vision.classification.readers import StoredTensor, open_weights


def leaves(value, path=()):
    """Whatever is no dict, by the names that lead to it."""
    if not isinstance(value, dict):
        return {".".join(path): value}
    return {
        name: leaf
        for key, each in value.items()
        for name, leaf in leaves(each, (*path, key)).items()
    }


def arrays_of(path):
    """Every tensor of a file as an array."""
    contents = open_weights(path)
    found = leaves(contents.value)
    return contents.arrays({n: leaf for n, leaf in found.items() if isinstance(leaf, StoredTensor)})
