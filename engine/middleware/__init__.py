"""The policies, one file each: a class, its order constraints with reasons, and its layer."""
