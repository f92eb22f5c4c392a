"""Every error that bertrec raises on purpose.

BertrecError
├── InvalidInput        an argument or a text that cannot be answered; never retried, never sent to the fallback
├── InvalidData         a data set that cannot be read: names file, row, column
├── InvalidRun          a training run that is missing, unfinished or of another version
├── InvalidBundle       a bundle that is missing, incomplete, altered or of another version
├── MissingDependency   an optional package is not installed: prints the pip command
├── ServerFailed        the local Triton server did not start, or died
└── Unavailable         no usable answer from the server: connection, overload, shutdown
    ├── Transient           … now; the same request may be answered a moment later
    │   └── Overloaded      … because it has too much to do; says when to come back, if the server did
    ├── DeadlineExceeded    … in the time given
    └── InvalidAnswer       … because what it sent lacks an output or cannot be read
"""


class BertrecError(Exception):
    """Base of every error that bertrec raises on purpose."""


class InvalidInput(BertrecError, ValueError):
    """An argument or a text that cannot be answered, whoever is asked."""


class InvalidData(BertrecError, ValueError):
    """A data set that cannot be used; the message names file, row and column."""


class InvalidRun(BertrecError):
    """A training run that is missing, unfinished or of another version."""


class InvalidBundle(BertrecError):
    """A bundle that is missing, incomplete, altered or of another version."""


class MissingDependency(BertrecError, ImportError):
    """An optional package is not installed, or not whole; the message holds the pip command."""

    def __init__(self, package: str, extra: str = "", *, advice: str = "") -> None:
        distribution = f"'bertrec[{extra}]'" if extra else "bertrec"
        super().__init__(advice or f"{package} is not installed; it comes with: pip install {distribution}")


class ServerFailed(BertrecError):
    """The local Triton server did not start, or died."""


class Unavailable(BertrecError):
    """No usable answer from the server; another one, or the edge, may have it."""


class Transient(Unavailable):
    """The server cannot answer now (no connection, overload, shutdown); the same request may be answered a moment later."""


class Overloaded(Transient):
    """The server has too much to do, and said so instead of answering.

    retry_after_s: how long it asked to be left alone; 0 where it did not say.
    """

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(Unavailable):
    """No answer within the time given."""


class InvalidAnswer(Unavailable):
    """The server answered with something that lacks an output or cannot be read."""
