"""Videos beside text: many frames, in order, of one clip or of several one behind the other."""
