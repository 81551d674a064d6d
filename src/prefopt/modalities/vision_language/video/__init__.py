"""Videos in prompts: clips put together, prepared clip by clip, drawn anew each epoch; and the builders of LongVPO's pairs."""
