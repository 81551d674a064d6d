"""Commands of `prefopt build` for motions, a file each."""
