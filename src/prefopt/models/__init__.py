"""Models: loading from a folder or hub id, adapters, identity, saving."""
