"""The papers' claims in miniature: `prefopt reproduce NAME`."""
