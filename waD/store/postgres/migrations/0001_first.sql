-- Text that is compared and ordered by this program is ordered by code points, whatever the database's locale.

CREATE TABLE wa_settings (k text COLLATE "C" PRIMARY KEY, v text NOT NULL);

-- One row for each connection that writes. Every transaction raises its number, so that after a lost connection it can
-- be found out whether the last one was committed: whoever reads the row under a lock waits for it to end.
CREATE TABLE wa_writers (
  id          uuid PRIMARY KEY,
  seq         bigint NOT NULL DEFAULT 0,
  at          timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE wa_sessions (
  id                     uuid PRIMARY KEY,
  name                   text COLLATE "C" NOT NULL UNIQUE,
  me_pn                  text COLLATE "C",
  me_lid                 text COLLATE "C",
  push_name              text,
  business_name          text,
  platform               text,
  desired_state          text NOT NULL DEFAULT 'down' CHECK (desired_state IN ('up','down','retired')),
  held                   boolean NOT NULL DEFAULT false,
  current_status         text NOT NULL DEFAULT 'new' CHECK (current_status IN
                           ('new','stopped','connecting','pairing','open','backoff','needs_pairing','failed')),
  last_disconnect_reason bigint,
  last_disconnect_tag    text,
  last_disconnect_detail jsonb,
  last_disconnected_at   timestamptz,
  last_connected_at      timestamptz,
  last_message_at        timestamptz,
  reconnect_count        bigint NOT NULL DEFAULT 0,
  reconnect_attempt      bigint NOT NULL DEFAULT 0,
  messages_received      bigint NOT NULL DEFAULT 0,
  messages_sent          bigint NOT NULL DEFAULT 0,
  decrypt_failures       bigint NOT NULL DEFAULT 0,
  retry_requests         bigint NOT NULL DEFAULT 0,
  auth_phase             text NOT NULL DEFAULT 'legacy_only' CHECK (auth_phase IN
                           ('legacy_only','dual_write','backfilled','snapshot_primary','cut_over','legacy_retired')),
  auth_epoch             bigint NOT NULL DEFAULT 1,
  auth_version           bigint NOT NULL DEFAULT 0,
  legacy_version         bigint NOT NULL DEFAULT 0,
  lease_token            bigint NOT NULL DEFAULT 0,
  lease_holder           text,
  lease_expires_at       timestamptz,
  dek_wrapped            bytea,
  dek_kek_id             text,
  created_at             timestamptz NOT NULL DEFAULT now(),
  updated_at             timestamptz NOT NULL DEFAULT now(),
  CHECK (legacy_version <= auth_version)
) WITH (fillfactor = 50);
CREATE INDEX wa_sessions_me ON wa_sessions (me_pn) WHERE me_pn IS NOT NULL;

CREATE TABLE wa_auth_keys (
  session_id  uuid NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  type        text COLLATE "C" NOT NULL,
  id          text COLLATE "C" NOT NULL,
  value       jsonb NOT NULL,
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (session_id, type, id)
) WITH (fillfactor = 70);

CREATE TABLE wa_auth_snapshots (
  session_id    uuid PRIMARY KEY REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  epoch         bigint NOT NULL,
  version       bigint NOT NULL,
  format        smallint NOT NULL DEFAULT 1,
  snapshot      jsonb NOT NULL,
  creds_version bigint NOT NULL,
  item_count    bigint NOT NULL,
  checksum      bytea NOT NULL CHECK (length(checksum) = 32),
  complete      boolean NOT NULL DEFAULT false,
  written_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE wa_auth_items (
  session_id  uuid NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  type        text COLLATE "C" NOT NULL,
  id          text COLLATE "C" NOT NULL,
  version     bigint NOT NULL,
  value       jsonb NOT NULL,
  checksum    bytea NOT NULL CHECK (length(checksum) = 32),
  PRIMARY KEY (session_id, type, id)
) WITH (fillfactor = 70);

CREATE TABLE wa_auth_sealed (
  session_id  uuid NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  epoch       bigint NOT NULL,
  version     bigint NOT NULL,
  reason      text NOT NULL CHECK (reason IN ('periodic','shutdown','pre_migration','pre_reset','pre_restore','manual')),
  document    jsonb NOT NULL,
  item_count  bigint NOT NULL,
  checksum    bytea NOT NULL CHECK (length(checksum) = 32),
  sealed_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (session_id, epoch, version)
);

CREATE TABLE wa_auth_phase_log (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  session_id  uuid NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  from_phase  text NOT NULL,
  to_phase    text NOT NULL,
  actor       text NOT NULL,
  report      jsonb NOT NULL,
  at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX wa_auth_phase_log_session ON wa_auth_phase_log (session_id, id);

CREATE TABLE wa_restored_archives (
  sha256      bytea PRIMARY KEY CHECK (length(sha256) = 32),
  session_id  uuid NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  at          timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE wa_inbound_buffer (
  session_id  uuid NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  cipher_sha  bytea NOT NULL CHECK (length(cipher_sha) = 32),
  chat        text COLLATE "C" NOT NULL,
  sender      text COLLATE "C" NOT NULL,
  message_id  text COLLATE "C" NOT NULL,
  inserted_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (session_id, cipher_sha)
);
CREATE INDEX wa_inbound_buffer_id ON wa_inbound_buffer (session_id, chat, sender, message_id);
CREATE INDEX wa_inbound_buffer_age ON wa_inbound_buffer (inserted_at);

CREATE TABLE wa_outbox (
  seq         bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  session_id  uuid NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  client_ref  text COLLATE "C" NOT NULL,
  chat        text COLLATE "C" NOT NULL,
  message_id  text COLLATE "C" NOT NULL,
  payload     jsonb NOT NULL,
  stanza      bytea,
  state       text NOT NULL DEFAULT 'queued' CHECK (state IN
                ('queued','held','sending','sent','failed','expired','cancelled')),
  attempts    bigint NOT NULL DEFAULT 0,
  not_before  timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz,
  last_error  text,
  created_at  timestamptz NOT NULL DEFAULT now(),
  written_at  timestamptz,
  sent_at     timestamptz,
  UNIQUE (session_id, client_ref),
  UNIQUE (session_id, message_id)
) WITH (fillfactor = 70);
CREATE INDEX wa_outbox_due ON wa_outbox (session_id, seq) WHERE state IN ('queued','sending');
CREATE INDEX wa_outbox_finished ON wa_outbox (created_at) WHERE state IN ('sent','failed','expired','cancelled');

CREATE TABLE wa_retry_buffer (
  session_id  uuid NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  chat        text COLLATE "C" NOT NULL,
  message_id  text COLLATE "C" NOT NULL,
  plaintext   bytea NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (session_id, chat, message_id)
);
CREATE INDEX wa_retry_buffer_age ON wa_retry_buffer (created_at);

CREATE TABLE whatsapp_messages (
  seq         bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  session_id  uuid NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  chat        text COLLATE "C" NOT NULL,
  sender      text COLLATE "C" NOT NULL,
  message_id  text COLLATE "C" NOT NULL,
  wire_chat   text,
  wire_sender text,
  from_me     boolean NOT NULL,
  ts          timestamptz NOT NULL,
  kind        text NOT NULL,
  body        text,
  content     jsonb,
  raw         bytea,
  status      smallint NOT NULL DEFAULT 1,
  source      text NOT NULL DEFAULT 'live' CHECK (source IN ('live','offline','history','import')),
  edited_at   timestamptz,
  revoked_at  timestamptz,
  inserted_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (session_id, chat, sender, message_id)
);
CREATE INDEX whatsapp_messages_id ON whatsapp_messages (session_id, message_id);
CREATE INDEX whatsapp_messages_chat ON whatsapp_messages (session_id, chat, seq);
CREATE INDEX whatsapp_messages_seq ON whatsapp_messages (session_id, seq);

CREATE TABLE wa_events (
  id          bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  session_id  uuid,
  session     text,
  kind        text NOT NULL,
  payload     jsonb NOT NULL,
  at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX wa_events_session ON wa_events (session_id, id);
CREATE INDEX wa_events_age ON wa_events (at);

-- Cursors are given and committed in the same order: whoever appends holds this lock until its transaction ends.
-- Otherwise a reader could go past an event that is committed late. It is taken before the first cursor is.
CREATE FUNCTION wa_events_in_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('wad.events'));
  RETURN NULL;
END $$;
CREATE TRIGGER wa_events_in_order BEFORE INSERT ON wa_events
  FOR EACH STATEMENT EXECUTE FUNCTION wa_events_in_order();

CREATE FUNCTION wa_forbid_history_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF coalesce(current_setting('wad.allow_history_delete', true), '') <> 'purge' THEN
    RAISE EXCEPTION 'WA001 whatsapp_messages is never deleted by session maintenance' USING ERRCODE = 'WA001';
  END IF;
  RETURN CASE TG_LEVEL WHEN 'ROW' THEN OLD ELSE NULL END;
END $$;
CREATE TRIGGER whatsapp_messages_keep BEFORE DELETE ON whatsapp_messages
  FOR EACH ROW EXECUTE FUNCTION wa_forbid_history_delete();
CREATE TRIGGER whatsapp_messages_keep_t BEFORE TRUNCATE ON whatsapp_messages
  FOR EACH STATEMENT EXECUTE FUNCTION wa_forbid_history_delete();

CREATE FUNCTION wa_check_phase() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.auth_phase = OLD.auth_phase THEN RETURN NEW; END IF;
  IF (OLD.auth_phase, NEW.auth_phase) NOT IN (
    ('legacy_only','dual_write'), ('dual_write','backfilled'), ('backfilled','snapshot_primary'),
    ('snapshot_primary','cut_over'), ('cut_over','legacy_retired'),
    ('dual_write','legacy_only'), ('backfilled','legacy_only'), ('snapshot_primary','backfilled'),
    ('snapshot_primary','legacy_only'), ('cut_over','snapshot_primary')) THEN
    RAISE EXCEPTION 'WA002 illegal phase change % -> %', OLD.auth_phase, NEW.auth_phase USING ERRCODE = 'WA002';
  END IF;
  IF NEW.auth_phase IN ('legacy_only','backfilled','snapshot_primary') AND OLD.auth_phase <> 'legacy_only'
     AND NEW.legacy_version <> NEW.auth_version THEN
    RAISE EXCEPTION 'WA003 legacy rows are stale (% <> %): run the reverse backfill first',
      NEW.legacy_version, NEW.auth_version USING ERRCODE = 'WA003';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER wa_sessions_phase BEFORE UPDATE OF auth_phase ON wa_sessions
  FOR EACH ROW EXECUTE FUNCTION wa_check_phase();
