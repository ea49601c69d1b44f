-- The log itself. Rows are only ever added.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    position   INTEGER PRIMARY KEY,          -- from 1, without gaps
    stream     TEXT    NOT NULL,             -- the generation's id
    version    INTEGER NOT NULL CHECK (version > 0),
    type       TEXT    NOT NULL,             -- also inside data; a column for the index and for people
    at_ms      INTEGER NOT NULL,             -- Unix time
    running_ms INTEGER NOT NULL,             -- core's running time
    data       BLOB    NOT NULL,             -- protobuf in its envelope, with a digest
    chain      BLOB    NOT NULL CHECK (length(chain) = 32)  -- hash of the row before and of this row
) STRICT;

-- Optimistic concurrency.
CREATE UNIQUE INDEX events_stream ON events (stream, version);

-- Exactly one end.
CREATE UNIQUE INDEX events_terminal ON events (stream)
    WHERE type IN ('generation.succeeded', 'generation.failed', 'generation.cancelled', 'generation.expired');

CREATE TRIGGER events_never_change BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never changed');
END;

CREATE TRIGGER events_never_go BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never deleted');
END;

-- Personal data, kept apart from the log so that it can be erased.
CREATE TABLE prompts (
    generation_id   TEXT PRIMARY KEY,
    salt            BLOB NOT NULL,
    prompt          TEXT NOT NULL,
    negative_prompt TEXT NOT NULL
) STRICT;

-- Idempotency keys, kept for a day of core's running time.
CREATE TABLE keys (
    tenant                TEXT NOT NULL,
    key                   TEXT NOT NULL,
    generation_id         TEXT NOT NULL,
    body_sha256           BLOB NOT NULL,
    expires_at_running_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

