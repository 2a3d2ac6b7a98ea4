-- What add-ons of a message are encrypted with: votes, answers to events, edits (chapter 04 §10.3).
CREATE TABLE wa_message_secrets (
  session_id  uuid NOT NULL REFERENCES wa_sessions(id) ON DELETE RESTRICT,
  chat        text COLLATE "C" NOT NULL,
  sender      text COLLATE "C" NOT NULL,
  message_id  text COLLATE "C" NOT NULL,
  wire_sender text COLLATE "C" NOT NULL,
  secret      bytea NOT NULL,
  message_ts  timestamptz NOT NULL,
  expires_at  timestamptz,
  PRIMARY KEY (session_id, chat, sender, message_id)
);
CREATE INDEX wa_message_secrets_expiry ON wa_message_secrets (expires_at) WHERE expires_at IS NOT NULL;
