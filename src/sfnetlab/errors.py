"""What a user can mend. Everything else that is raised is a bug."""


class SfnetlabError(Exception):
    """Printed as one message without a traceback; the command ends with exit status 2."""


class ConfigError(SfnetlabError):
    """The TOML file or a `--set` does not fit the schema."""


class DataError(SfnetlabError):
    """A catalogue, image, table or weights file is not what the configuration says."""


class ArtifactError(SfnetlabError):
    """A result on disk is missing, stale or damaged."""


class BusyError(ArtifactError):
    """Another process is building a result."""


class TrainingError(SfnetlabError):
    """A training run cannot go on, for example because the loss is not finite."""
