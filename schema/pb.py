"""The generated messages under one short name: `from schema import pb`, then `pb.ImageJob`."""

import sys

from schema.gen.darkroom.v1 import *  # noqa: F403  (generated; the names are the protos')
from schema.gen.darkroom.v1 import TraceContext

# At its first use the Rust codec leaves a module without a name or file in sys.modules. inspect.getmodule stumbles
# over it, and importing torch calls that: a worker that decoded a job before torch was loaded could not load it.
bytes(TraceContext(traceparent="-"))
sys.modules.pop("", None)
