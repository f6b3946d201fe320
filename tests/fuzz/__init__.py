"""Fuzzing of everything that reads another's bytes: replies, streams, errors, headers, clients' requests, rows."""
