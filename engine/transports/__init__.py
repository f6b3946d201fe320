"""The HTTP port and its adapters, one file a client library."""
