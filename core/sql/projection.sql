-- What the log looks like now; written with it, and rebuilt from it by `python -m core rebuild`.
CREATE TABLE generations (
    position            INTEGER PRIMARY KEY,  -- of the first event
    id                  TEXT    NOT NULL UNIQUE,
    tenant              TEXT    NOT NULL,
    status              INTEGER NOT NULL,
    version             INTEGER NOT NULL,
    model               TEXT    NOT NULL,
    width               INTEGER NOT NULL,
    height              INTEGER NOT NULL,
    num_inference_steps INTEGER NOT NULL,
    guidance_scale      REAL    NOT NULL,
    seed                INTEGER NOT NULL,
    n                   INTEGER NOT NULL,
    output_format       INTEGER NOT NULL,
    scheduler           TEXT    NOT NULL,
    priority            INTEGER NOT NULL,
    ttl_s               INTEGER NOT NULL,
    requested_at_ms     INTEGER NOT NULL,
    started_at_ms       INTEGER NOT NULL,
    finished_at_ms      INTEGER NOT NULL,
    detail              TEXT    NOT NULL,
    erased              INTEGER NOT NULL
) STRICT;

CREATE INDEX generations_of_tenant ON generations (tenant, position);

CREATE INDEX generations_open ON generations (position) WHERE status IN (1, 2);

CREATE TABLE images (
    generation_id TEXT    NOT NULL,
    "index"       INTEGER NOT NULL,
    status        INTEGER NOT NULL,
    dispatches    INTEGER NOT NULL,
    attempt_id    TEXT    NOT NULL,
    public_key    TEXT    NOT NULL,
    sha256        BLOB    NOT NULL,
    size_bytes    INTEGER NOT NULL,
    failure       INTEGER NOT NULL,
    PRIMARY KEY (generation_id, "index")
) STRICT, WITHOUT ROWID;
