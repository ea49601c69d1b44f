"""What can go wrong in core, and who is told.

Exception
├── infra.retry.Retryable            try again later: gRPC UNAVAILABLE
│   ├── LogFull                      no room on disk; nothing was written
│   └── LogHeld                      a reader keeps the write-ahead log from being folded up; nothing was written
├── infra.retry.Permanent
│   ├── LogBroken                    the log's state is unknown or damaged: core stops at once
│   ├── VersionConflict              somebody else wrote this stream: two cores on one log; core stops
│   └── LogUnusable                  cannot be opened as things are; `app` makes it a ConfigError
└── core.decide.Refused              the command does not fit the state: told to the caller
"""

from infra.retry import Permanent, Retryable


class LogFull(Retryable):
    """The disk is full; the transaction was rolled back and nothing was written."""


class LogHeld(Retryable):
    """The write-ahead log has reached its limit, and a reader that does not end keeps it from being folded up."""


class LogBroken(Permanent):
    """A write or sync failed in a way that leaves the outcome unknown, or stored bytes do not verify."""


class VersionConflict(Permanent):
    """The stream has grown by another hand: two cores share one log."""


FATAL = (LogBroken, VersionConflict)
"""What core cannot go on after: whoever handles Permanent of a queue or a store lets these through."""


class LogUnusable(Permanent):
    """The log cannot be opened as things are. The text is one line that says what to do."""
