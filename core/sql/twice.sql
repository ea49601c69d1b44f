-- What has no digest of its own stands twice: in its table and, whole, in an index, so that integrity_check sees a
-- flipped bit in either. Also made in logs of before.
DROP INDEX IF EXISTS keys_expiry;
CREATE INDEX IF NOT EXISTS keys_whole ON keys (expires_at_running_ms, generation_id, body_sha256);
CREATE INDEX IF NOT EXISTS meta_whole ON meta (value);
