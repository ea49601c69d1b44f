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
│   ├── Refused               a model server refuses this image for good: reported for it alone
│   ├── NotNow                a model server does not take this image now: given back, uncounted
│   ├── EngineAway            the model cannot be used for now (its server is away, its process does not start again):
│   │                         its images are given back, uncounted; only that model is out, and it is retried later
│   ├── LoadFailed            the model's files or settings are broken: its images are refused; only that model is out,
│   │   │                     and it is retried after growing pauses and when its files change
│   │   └── ModelAway         the model cannot be loaded for now: treated like EngineAway
│   └── EngineLost            the device is beyond repair in this process: reported, the process ends
└── Hung                      no step, or no loaded model, within the deadline: reported, the process ends

Anything else out of an engine is a model error: the batch is bisected, and what fails alone is reported.
"""


class EngineError(Exception):
    """A failure that the engine itself has classified. The text never holds a prompt."""


class Unsupported(EngineError):
    """Unknown model, size or option."""


class Incapable(Unsupported):
    """The model cannot do what is asked, on any worker. The text says what it can do."""


class OutOfMemory(EngineError):
    """The device or the machine has no room for this batch."""


class BadOutput(EngineError):
    """The output is no usable picture: not finite, of a wrong size, or impossible to encode."""


class LoadFailed(EngineError):
    """The model could not be loaded because of its files or settings."""


class ModelAway(LoadFailed):
    """The model could not be loaded for now: its server is away, its process died, or the deadline passed."""


class Refused(EngineError):
    """A model server that works refuses this image for good."""


class NotNow(EngineError):
    """A model server does not take this image for now. Says nothing about others."""


class EngineDied(EngineError):
    """The process that held the model has ended, or was ended because it hung."""


class EngineAway(EngineError):
    """The model cannot be used for now: its server answers no request, or its process does not start again. Says
    nothing about the images. The model is not tried again before `pause_s` seconds are over.
    """

    def __init__(self, text: str = "", *, pause_s: float = 0.0) -> None:
        super().__init__(text)
        self.pause_s = pause_s


class EngineLost(EngineError):
    """A sticky device error: only a new process helps."""
