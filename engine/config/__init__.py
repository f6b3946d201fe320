"""Composition of a run spec: the only folder that imports Hydra and OmegaConf."""
