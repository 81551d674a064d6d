"""How likely a model finds a sample, given its condition: one number an item, up to a constant that cancels.

`tokens` scores text. A likelihood has three methods, and the training loop knows no more than these:

    encode(item)           once, on the host: what the item becomes (token ids; latents; ...)
    plan(encoded items)    once a batch: tensors, and which positions of them are scored for which item (`plan.py`)
    score(model, plan)     on the device: `ItemScores`
"""
