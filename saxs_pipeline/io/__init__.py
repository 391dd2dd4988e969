"""Reading what the beamlines write; each format is one module and one registry line."""
