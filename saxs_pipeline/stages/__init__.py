"""Configuration + types in, types out: one public function for each step of the chain."""
