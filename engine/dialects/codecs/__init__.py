"""Framings of bytes: server-sent events, NDJSON, multipart forms, protobuf."""
