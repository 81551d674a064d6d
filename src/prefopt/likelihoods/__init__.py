"""How likely a model finds a sample, given its condition: one number an item, up to a constant that cancels.

`base` says what a likelihood offers; training and references know no more. `tokens` scores text.
"""
