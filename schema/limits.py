"""Limits that gateway, core and worker must agree on, with the reason where it is not obvious."""

MAX_PROMPT_CHARS = 2_000
"""Per prompt. CLIP reads 77 tokens; the rest is head-room for models with longer text encoders."""

MIN_SIDE_PX = 64
MAX_SIDE_PX = 2_048
MAX_RENDERED_PX = 4_096
"""Per side, before the image is cropped to the requested size: engines round sides up."""
SIDE_MULTIPLE_PX = 8
"""Latents of every supported autoencoder are at least eight times smaller than the picture."""

MAX_STEPS = 150
MAX_GUIDANCE = 30.0
MAX_IMAGES = 10
"""Per generation: one SQS batch, and the maximum of the OpenAI Images API."""

SEED_MODULUS = 2**32
"""Image i of a generation has seed (seed + i) mod 2^32: exact in JSON, and in every torch generator."""

MIN_PRIORITY = -10
MAX_PRIORITY = 10
MAX_TTL_S = 7 * 24 * 3600
MAX_WALL_MS = 2**53
"""The same limit as for times in events, so that core can send whatever it has recorded."""

MAX_SUBMIT_ITEMS = 100
"""Items in one Submit call: keeps one transaction under about 10 ms."""

MAX_LIST_PAGE = 100
MAX_WAIT_MS = 60_000
MAX_STILL_WANTED = 1_000
MAX_MODELS = 64
"""Models that one worker may report; a worker with more reports the first ones."""

MAX_RPC_BYTES = 4 * 1024 * 1024
MAX_IDEMPOTENCY_KEY_CHARS = 255
MAX_ID_CHARS = 64
"""Generation ids ("gen_" and 26 characters), attempt, batch and worker ids, tenants."""

MAX_DETAIL_CHARS = 200
MAX_OBJECT_BYTES = 64 * 1024 * 1024
