"""The generated messages under one short name: `from schema import pb`, then `pb.ImageJob`."""

from schema.gen.darkroom.v1 import *  # noqa: F403  (generated; the names are the protos')
