"""What can go wrong in core, and what follows.

Exception
├── infra.retry.Retryable            try again later: gRPC UNAVAILABLE
│   ├── LogFull                      no room on disk; nothing was written
│   └── LogHeld                      a reader blocks the checkpoint of the write-ahead log; nothing was written
├── infra.retry.Permanent
│   ├── LogBroken                    the log's state is unknown or damaged: core stops at once
│   ├── VersionConflict              another process wrote this stream: two cores on one log; core stops
│   └── LogUnusable                  the log cannot be opened as it is; `app` turns it into a ConfigError
│       └── core.domain.provenance.UnreadableNote
└── core.domain.decide.Refused       the command does not fit the state: the caller gets the reason
"""

from infra.retry import Permanent, Retryable


class LogFull(Retryable):
    """The disk is full; the transaction was rolled back and nothing was written."""


class LogHeld(Retryable):
    """The write-ahead log has reached its limit, and a reader that does not end blocks its checkpoint."""


class LogBroken(Permanent):
    """A write or sync failed in a way that leaves the outcome unknown, or stored bytes do not verify."""


class VersionConflict(Permanent):
    """Another process has appended to the stream: two cores share one log."""


FATAL = (LogBroken, VersionConflict)
"""Core cannot continue after these: code that handles a queue's or a store's Permanent must let them through."""


class LogUnusable(Permanent):
    """The log cannot be opened as it is. The text is one line that says what to do."""
