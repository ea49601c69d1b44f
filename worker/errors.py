"""What can go wrong in the worker, and what it does about it.

Exception
├── infra.retry.Retryable     queue, store or core out of reach: tried again
├── infra.retry.Permanent     refused: logged, readiness off, tried again at the longest interval
├── EngineError
│   ├── Unsupported           this worker will never render it: reported, the message deleted
│   │   └── Incapable         no worker will, for the model cannot: reported as final, with the reason
│   ├── OutOfMemory           the batch is halved and the cap remembered; alone: reported
│   ├── BadOutput             NaN, wrong size, cannot be encoded: reported for that image alone
│   ├── EngineDied            the engine's own process ended: started again, its members run again, each alone
│   ├── EngineAway            somebody else's model server answers nobody: its members begin anew, later and later; in
│   │                         the end they are handed back and the process ends
│   ├── LoadFailed            three times in a row: readiness off, nothing more is received
│   └── EngineLost            the device is beyond repair in this process: reported, the process ends
└── Hung                      no step, or no loaded model, within the deadline: reported, the process ends

Anything else out of an engine is a model error: the batch is bisected, and what fails alone is reported.
"""


class EngineError(Exception):
    """An engine's own word on what went wrong. Texts hold no prompt."""


class Unsupported(EngineError):
    """Unknown model, size or option."""


class Incapable(Unsupported):
    """The model cannot do what is asked, on any worker. The text says what it can do."""


class OutOfMemory(EngineError):
    """The device or the machine has no room for this batch."""


class BadOutput(EngineError):
    """The picture is not one."""


class LoadFailed(EngineError):
    """The model could not be loaded."""


class EngineDied(EngineError):
    """The process that held the model has ended, or was ended because it hung."""


class EngineAway(EngineError):
    """A model server that is not ours answers nobody. Says nothing about the pictures."""


class EngineLost(EngineError):
    """A sticky device error: only a new process helps."""


class Hung(Exception):
    """The GPU thread has not made a step, or loaded a model, for too long."""
