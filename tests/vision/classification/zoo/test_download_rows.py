"""Every published row, from a server: a good file is taken; of a wrong one nothing is left."""

import hashlib
from dataclasses import replace
from urllib.parse import urlparse

import pytest

from official.vision.classification.errors import WeightsError
from official.vision.classification.zoo.download import cached_path, fetch
from official.vision.classification.zoo.rows import BY_NAME, ROWS
from tests.servers import whole

NAMES = [row.name for row in ROWS if row.shipped is None]
GOOD, WRONG = b"what the publisher has", b"what somebody else has"


def accept(path):
    assert path.read_bytes() in (GOOD, WRONG)


def refuse(path):
    raise WeightsError(f"{path}: does not fit")


@pytest.mark.parametrize("name", NAMES)
def test_a_good_file_is_taken_and_a_wrong_one_is_not(name, mirror, caplog):
    row = BY_NAME[name]
    sure = row.digest_is_sha256 and bool(row.digest_prefix)
    if sure:  # of a file of ours, as many digits as its publisher states
        digest = hashlib.sha256(GOOD).hexdigest()
        row = replace(row, digest_prefix=digest[: len(row.digest_prefix)])
    place, path = urlparse(row.url).path, cached_path(row.url)
    mirror.answers[place] = whole(WRONG)
    with pytest.raises(WeightsError, match="not the weights of"):
        fetch(row, accept if sure else refuse, 1000)
    assert mirror.cached == []
    with pytest.raises(WeightsError):
        fetch(row, accept, len(WRONG) - 1)  # longer than a network's weights
    assert mirror.cached == []
    mirror.answers[place] = whole(GOOD)
    assert fetch(row, accept, 1000) == path and path.read_bytes() == GOOD
    said = caplog.text
    assert ("could not be verified" in said) != sure
    assert ("forbids commercial use" in said) != row.commercial
    asked = len(mirror.requests)
    assert fetch(row, refuse, 1000) == path and len(mirror.requests) == asked == 3
    path.write_bytes(WRONG)
    with pytest.raises(WeightsError, match="has changed since"):
        fetch(row, accept, 1000)


def test_no_two_rows_share_a_place_in_the_cache(mirror):
    """But for one file under two names."""
    places = {}
    for name in NAMES:
        places.setdefault(cached_path(BY_NAME[name].url), set()).add(BY_NAME[name].url)
    assert all(len(urls) == 1 for urls in places.values())
    assert len(NAMES) > 140
