"""The last stage of the chain: it calls a target. One file a kind of provider."""
