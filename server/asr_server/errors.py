"""What can go wrong around the server process; each message is for the person at the terminal."""


class ServerError(Exception):
    """The server cannot be started, or did not come up."""


class ServerCrashed(ServerError):  # noqa: N818
    """The server did not come up as a signal ended it: the next start may do better."""


class SettingsError(ServerError):
    """A setting has a bad value; the message names it and what is valid."""


class StartCancelled(ServerError):  # noqa: N818 - the caller asked for it, nothing went wrong
    """`start()` was told to stop while it was waiting."""
