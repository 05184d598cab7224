"""The errors that a user can cause. Everything else that is raised is a defect of ours."""


class MarlError(Exception):
    """Root of the errors that the command line reports in one line; the exit code is 2."""


class ConfigError(MarlError, ValueError):
    """A setting is wrong. The message names the key, the value and what is allowed."""


class GameError(MarlError):
    """A game broke its contract. The message holds what is needed to replay it: name, seed and action list."""


class ModelError(MarlError, ValueError):
    """A model folder or tokenizer cannot be used."""


class RunError(MarlError):
    """A run directory cannot be used: damaged, locked by another process, or the disk is full."""


class TrainingError(MarlError):
    """A step could not be trained, for example because its loss was not finite."""
