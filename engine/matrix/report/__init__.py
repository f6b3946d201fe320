"""Records of matrix passes and their reports."""
