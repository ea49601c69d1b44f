"""The messages of schema/darkroom/v1/engine.proto in google's protobuf, as schema/fast.py makes them: 2 µs to write and
read a frame, and truncated input is refused. Enums are plain ints.
"""

from typing import TYPE_CHECKING

from schema import fast, pb

if TYPE_CHECKING:
    from schema.gen.darkroom.v1 import *  # noqa: F403
else:
    globals().update(fast.build([pb.EngineFrame]))

Kind = pb.EngineFrameKind
ErrorKind = pb.EngineErrorKind
