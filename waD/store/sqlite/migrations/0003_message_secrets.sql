-- What add-ons of a message are encrypted with: votes, answers to events, edits (chapter 04 §10.3).
CREATE TABLE wa_message_secrets (
  session_id  TEXT NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  chat        TEXT NOT NULL,
  sender      TEXT NOT NULL,
  message_id  TEXT NOT NULL,
  wire_sender TEXT NOT NULL,
  secret      BLOB NOT NULL,
  message_ts  INTEGER NOT NULL,
  expires_at  INTEGER,
  PRIMARY KEY (session_id, chat, sender, message_id)
) STRICT;
CREATE INDEX wa_message_secrets_expiry ON wa_message_secrets (expires_at) WHERE expires_at IS NOT NULL;
