"""KServe's Open Inference Protocol (v2) over REST and gRPC."""
