"""Keys of the configuration, a file a kind; each group says where it applies."""
