-- Of every connection that writes. Settings that hold per connection, save journal_mode, which stays in the file.
PRAGMA busy_timeout = 2000;            -- ms to wait for a process that should not be there
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;             -- one sync per commit: what was acknowledged survives a power cut
PRAGMA secure_delete = ON;             -- an erased prompt is overwritten
PRAGMA recursive_triggers = ON;        -- so that INSERT OR REPLACE meets the delete trigger too
PRAGMA wal_autocheckpoint = 0;         -- core.log.append does it: SQLite keeps an error of its own to itself
PRAGMA journal_size_limit = 67108864;  -- bytes the WAL file keeps after a checkpoint
PRAGMA cache_size = -32768;            -- KiB
PRAGMA temp_store = MEMORY;
