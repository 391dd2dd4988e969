"""The physics as pure functions: numpy and scipy only, no files, no configuration."""
