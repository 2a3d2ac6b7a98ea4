"""WhatsApp's protobuf messages, by domain; the modules are generated from the .proto files beside them."""
