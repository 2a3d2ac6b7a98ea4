-- Sessions: phases, leases that end, keys that are encrypted at rest.
ALTER TABLE wa_sessions ADD COLUMN auth_phase TEXT NOT NULL DEFAULT 'cut_over' CHECK (auth_phase IN
  ('legacy_only','dual_write','backfilled','snapshot_primary','cut_over','legacy_retired'));
ALTER TABLE wa_sessions ADD COLUMN legacy_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE wa_sessions ADD COLUMN lease_expires_at INTEGER;
ALTER TABLE wa_sessions ADD COLUMN dek_wrapped BLOB;
ALTER TABLE wa_sessions ADD COLUMN dek_kek_id TEXT;
-- After a restore of an old state, peers ask again for what they cannot read.
ALTER TABLE wa_sessions ADD COLUMN retry_requests INTEGER NOT NULL DEFAULT 0;

-- The same items as documents with their checksums.
ALTER TABLE wa_auth_items RENAME TO wa_auth_items_1;
ALTER TABLE wa_auth_snapshots RENAME TO wa_auth_snapshots_1;

CREATE TABLE wa_auth_snapshots (
  session_id    TEXT PRIMARY KEY REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  epoch         INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  format        INTEGER NOT NULL DEFAULT 1,
  snapshot      TEXT NOT NULL,
  creds_version INTEGER NOT NULL,
  item_count    INTEGER NOT NULL,
  checksum      BLOB NOT NULL CHECK (length(checksum) = 32),
  complete      INTEGER NOT NULL DEFAULT 0 CHECK (complete IN (0,1)),
  written_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE wa_auth_items (
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  type        TEXT NOT NULL,
  id          TEXT NOT NULL,
  version     INTEGER NOT NULL,
  value       TEXT NOT NULL,
  checksum    BLOB NOT NULL CHECK (length(checksum) = 32),
  PRIMARY KEY (session_id, type, id)
) STRICT, WITHOUT ROWID;

INSERT INTO wa_auth_items (session_id, type, id, version, value, checksum)
SELECT session_id, type, id, version, document, wad_checksum(type, id, version, document) FROM
  (SELECT session_id, type, id, version, wad_upgrade(type, id, value) AS document FROM wa_auth_items_1);

INSERT INTO wa_auth_snapshots (session_id, epoch, version, snapshot, creds_version, item_count, checksum, complete,
                               written_at)
SELECT h.session_id, h.epoch, s.auth_version, wad_creds(h.snapshot), h.creds_version,
       (SELECT count(*) FROM wa_auth_items i WHERE i.session_id = h.session_id),
       wad_sum(wad_checksum('creds', '', h.creds_version, wad_creds(h.snapshot)),
               (SELECT wad_total(i.checksum) FROM wa_auth_items i WHERE i.session_id = h.session_id)),
       1, s.updated_at
FROM wa_auth_snapshots_1 h JOIN wa_sessions s ON s.id = h.session_id;

-- A session that stored items before it had credentials.
INSERT INTO wa_auth_snapshots (session_id, epoch, version, snapshot, creds_version, item_count, checksum, complete,
                               written_at)
SELECT s.id, s.auth_epoch, s.auth_version, 'null', s.auth_version,
       (SELECT count(*) FROM wa_auth_items i WHERE i.session_id = s.id),
       wad_sum(wad_checksum('creds', '', s.auth_version, 'null'),
               (SELECT wad_total(i.checksum) FROM wa_auth_items i WHERE i.session_id = s.id)),
       1, s.updated_at
FROM wa_sessions s WHERE s.id IN (SELECT session_id FROM wa_auth_items)
  AND s.id NOT IN (SELECT session_id FROM wa_auth_snapshots_1);

DROP TABLE wa_auth_items_1;
DROP TABLE wa_auth_snapshots_1;

ALTER TABLE wa_auth_sealed RENAME TO wa_auth_sealed_1;
CREATE TABLE wa_auth_sealed (
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  epoch       INTEGER NOT NULL,
  version     INTEGER NOT NULL,
  reason      TEXT NOT NULL CHECK (reason IN ('periodic','shutdown','pre_migration','pre_reset','pre_restore','manual')),
  document    TEXT NOT NULL,
  item_count  INTEGER NOT NULL,
  checksum    BLOB NOT NULL CHECK (length(checksum) = 32),
  sealed_at   INTEGER NOT NULL,
  PRIMARY KEY (session_id, epoch, version)
) STRICT;
INSERT INTO wa_auth_sealed SELECT session_id, epoch, version, reason, CAST(document AS TEXT), item_count, checksum,
  sealed_at FROM wa_auth_sealed_1;
DROP TABLE wa_auth_sealed_1;

CREATE TABLE wa_auth_keys (
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  type        TEXT NOT NULL,
  id          TEXT NOT NULL,
  value       TEXT NOT NULL,
  updated_at  INTEGER NOT NULL,
  PRIMARY KEY (session_id, type, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE wa_auth_phase_log (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  from_phase  TEXT NOT NULL,
  to_phase    TEXT NOT NULL,
  actor       TEXT NOT NULL,
  report      TEXT NOT NULL CHECK (json_valid(report)),
  at          INTEGER NOT NULL
) STRICT;

CREATE TABLE wa_restored_archives (
  sha256      BLOB PRIMARY KEY CHECK (length(sha256) = 32),
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER wa_sessions_phase BEFORE UPDATE OF auth_phase ON wa_sessions WHEN NEW.auth_phase <> OLD.auth_phase
BEGIN
  SELECT RAISE(ABORT, 'WA002 illegal phase change') WHERE OLD.auth_phase || '>' || NEW.auth_phase NOT IN
    ('legacy_only>dual_write','dual_write>backfilled','backfilled>snapshot_primary','snapshot_primary>cut_over',
     'cut_over>legacy_retired','dual_write>legacy_only','backfilled>legacy_only','snapshot_primary>backfilled',
     'snapshot_primary>legacy_only','cut_over>snapshot_primary');
  SELECT RAISE(ABORT, 'WA003 legacy rows are stale') WHERE NEW.auth_phase IN ('legacy_only','backfilled','snapshot_primary')
     AND OLD.auth_phase <> 'legacy_only' AND NEW.legacy_version <> NEW.auth_version;
END;
