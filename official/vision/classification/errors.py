"""The errors a user can mend. Their text is shown alone, without a traceback."""

import contextlib
from typing import Iterator


class UserError(Exception):
    """What went wrong, where, and the way out, in one or two lines."""

    exit_code = 1


class UsageError(UserError):
    """A flag, a name or a recipe key that does not exist or does not fit."""

    exit_code = 2


class DataError(UserError):
    """A folder or an image that is missing, empty or unreadable."""


class MissingSplit(DataError):
    """A data set that has no images for training, validation or testing."""


class WeightsError(UserError):
    """A weight file that is missing, damaged, foreign or does not fit the network."""


class DownloadError(WeightsError):
    """A weight file that could not be fetched."""


class TrainingError(UserError):
    """A run that cannot go on, such as one whose loss is no longer finite."""


@contextlib.contextmanager
def explained_threads() -> Iterator[None]:
    """Say what is wrong where MegEngine is called from a thread that it was not imported in.

    Its dispatcher (1.13) keeps what it needs in thread-local storage of that thread alone, and
    fails in others by an assertion.

    Raises:
        UsageError: inside of ``with``, in such a thread.
    """
    try:
        yield
    except RuntimeError as error:
        if "context.transformations" not in str(error):
            raise
        raise UsageError(
            "MegEngine computes only in the thread that has imported it, and this is another one: "
            "hand images to that thread (docs/export.md shows how), or start a process for each"
        ) from None
