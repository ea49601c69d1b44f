-- Erased generations whose objects are still to be deleted, or looked for once more. Also made in logs of before.
-- `looks` 0: the store has not yet confirmed the first deletion.
CREATE TABLE IF NOT EXISTS deletions (
    generation_id  TEXT    PRIMARY KEY,
    due_running_ms INTEGER NOT NULL,      -- core's running time
    looks          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Finds what is due, and holds each row once more, as in twice.sql.
CREATE INDEX IF NOT EXISTS deletions_whole ON deletions (due_running_ms, looks);
