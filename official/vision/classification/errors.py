"""The errors a user can mend. Their text is shown alone, without a traceback."""


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
