CREATE TABLE wa_settings (k TEXT PRIMARY KEY, v TEXT NOT NULL) STRICT;

CREATE TABLE wa_sessions (
  id                     TEXT PRIMARY KEY,
  name                   TEXT NOT NULL UNIQUE,
  me_pn                  TEXT,
  me_lid                 TEXT,
  push_name              TEXT,
  business_name          TEXT,
  platform               TEXT,
  desired_state          TEXT NOT NULL DEFAULT 'down' CHECK (desired_state IN ('up','down','retired')),
  held                   INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0,1)),
  current_status         TEXT NOT NULL DEFAULT 'new' CHECK (current_status IN
                           ('new','stopped','connecting','pairing','open','backoff','needs_pairing','failed')),
  last_disconnect_tag    TEXT,
  last_disconnect_reason INTEGER,
  last_disconnect_detail TEXT CHECK (last_disconnect_detail IS NULL OR json_valid(last_disconnect_detail)),
  last_disconnected_at   INTEGER,
  last_connected_at      INTEGER,
  last_message_at        INTEGER,
  reconnect_count        INTEGER NOT NULL DEFAULT 0,
  reconnect_attempt      INTEGER NOT NULL DEFAULT 0,
  messages_received      INTEGER NOT NULL DEFAULT 0,
  messages_sent          INTEGER NOT NULL DEFAULT 0,
  decrypt_failures       INTEGER NOT NULL DEFAULT 0,
  auth_epoch             INTEGER NOT NULL DEFAULT 1,
  auth_version           INTEGER NOT NULL DEFAULT 0,
  lease_token            INTEGER NOT NULL DEFAULT 0,
  lease_holder           TEXT,
  created_at             INTEGER NOT NULL,
  updated_at             INTEGER NOT NULL
) STRICT;
CREATE INDEX wa_sessions_me ON wa_sessions (me_pn) WHERE me_pn IS NOT NULL;

CREATE TABLE wa_auth_snapshots (
  session_id    TEXT PRIMARY KEY REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  epoch         INTEGER NOT NULL,
  snapshot      BLOB NOT NULL,
  creds_version INTEGER NOT NULL
) STRICT;

CREATE TABLE wa_auth_items (
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  type        TEXT NOT NULL,
  id          TEXT NOT NULL,
  version     INTEGER NOT NULL,
  value       BLOB NOT NULL,
  PRIMARY KEY (session_id, type, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE wa_auth_sealed (
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  epoch       INTEGER NOT NULL,
  version     INTEGER NOT NULL,
  reason      TEXT NOT NULL CHECK (reason IN ('periodic','shutdown','pre_migration','pre_reset','pre_restore','manual')),
  document    BLOB NOT NULL,
  item_count  INTEGER NOT NULL,
  checksum    BLOB NOT NULL CHECK (length(checksum) = 32),
  sealed_at   INTEGER NOT NULL,
  PRIMARY KEY (session_id, epoch, version)
) STRICT;

CREATE TABLE wa_inbound_buffer (
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  cipher_sha  BLOB NOT NULL CHECK (length(cipher_sha) = 32),
  chat        TEXT NOT NULL,
  sender      TEXT NOT NULL,
  message_id  TEXT NOT NULL,
  inserted_at INTEGER NOT NULL,
  PRIMARY KEY (session_id, cipher_sha)
) STRICT, WITHOUT ROWID;
CREATE INDEX wa_inbound_buffer_id ON wa_inbound_buffer (session_id, chat, sender, message_id);
CREATE INDEX wa_inbound_buffer_age ON wa_inbound_buffer (inserted_at);

CREATE TABLE wa_outbox (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  client_ref  TEXT NOT NULL,
  chat        TEXT NOT NULL,
  message_id  TEXT NOT NULL,
  payload     TEXT NOT NULL CHECK (json_valid(payload)),
  stanza      BLOB,
  state       TEXT NOT NULL DEFAULT 'queued' CHECK (state IN
                ('queued','held','sending','sent','failed','expired','cancelled')),
  attempts    INTEGER NOT NULL DEFAULT 0,
  not_before  INTEGER NOT NULL DEFAULT 0,
  expires_at  INTEGER,
  last_error  TEXT,
  created_at  INTEGER NOT NULL,
  written_at  INTEGER,
  sent_at     INTEGER,
  UNIQUE (session_id, client_ref),
  UNIQUE (session_id, message_id)
) STRICT;
CREATE INDEX wa_outbox_due ON wa_outbox (session_id, seq) WHERE state IN ('queued','sending');
CREATE INDEX wa_outbox_finished ON wa_outbox (created_at) WHERE state IN ('sent','failed','expired','cancelled');

CREATE TABLE wa_retry_buffer (
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  chat        TEXT NOT NULL,
  message_id  TEXT NOT NULL,
  plaintext   BLOB NOT NULL,
  created_at  INTEGER NOT NULL,
  PRIMARY KEY (session_id, chat, message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX wa_retry_buffer_age ON wa_retry_buffer (created_at);

CREATE TABLE whatsapp_messages (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  chat        TEXT NOT NULL,
  sender      TEXT NOT NULL,
  message_id  TEXT NOT NULL,
  wire_chat   TEXT,
  wire_sender TEXT,
  from_me     INTEGER NOT NULL CHECK (from_me IN (0,1)),
  ts          INTEGER NOT NULL,
  kind        TEXT NOT NULL,
  body        TEXT,
  content     TEXT CHECK (content IS NULL OR json_valid(content)),
  raw         BLOB,
  status      INTEGER NOT NULL DEFAULT 1,
  source      TEXT NOT NULL DEFAULT 'live' CHECK (source IN ('live','offline','history','import')),
  edited_at   INTEGER,
  revoked_at  INTEGER,
  inserted_at INTEGER NOT NULL,
  UNIQUE (session_id, chat, sender, message_id)
) STRICT;
CREATE INDEX whatsapp_messages_id ON whatsapp_messages (session_id, message_id);
CREATE INDEX whatsapp_messages_chat ON whatsapp_messages (session_id, chat, seq);

CREATE TABLE wa_events (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id  TEXT,
  session     TEXT,
  kind        TEXT NOT NULL,
  payload     TEXT NOT NULL CHECK (json_valid(payload)),
  at          INTEGER NOT NULL
) STRICT;
CREATE INDEX wa_events_session ON wa_events (session_id, id);

CREATE TRIGGER whatsapp_messages_keep BEFORE DELETE ON whatsapp_messages
WHEN coalesce((SELECT v FROM wa_settings WHERE k = 'allow_history_delete'), '') <> 'purge'
BEGIN SELECT RAISE(ABORT, 'WA001 whatsapp_messages is never deleted by session maintenance'); END;
