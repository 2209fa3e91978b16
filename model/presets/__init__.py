"""Presets: one frozen dataclass per file."""
