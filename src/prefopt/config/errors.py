"""What is raised for a configuration that cannot be used."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says what was given, what is needed and what to do."""
