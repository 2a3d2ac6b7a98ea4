"""Records of other Signal libraries, in and out (chapter 08 §2, §4 and §5).

`node` is libsignal-node and the Baileys files, `golang` the JSON of libsignal-go, `protobuf` libsignal's own
record structures, `native` the canonical JSON that backups hold. Each has import_session, export_session,
import_sender_key and export_sender_key. What an import cannot carry over is told in its warnings.
"""
