"""Signal as WhatsApp uses it: keys, sessions, sender keys, device identities (chapter 03).

Sans-IO: no clock, no sockets, and every random byte is passed in.
"""
