"""OPEA's microservices and megaservices."""
