"""Steps from comparisons of weights instead of gradients: try small random moves, keep the direction that wins.

perturbations  counted random moves: a function of seed, iteration and index alone
comparison     the oracle (did a move help?), clean and noisy pairs, gates, damping
direction      answers and moves -> a direction; which entries are kept
head           the answers when only the output projection moves, without running the model
plain          the same for any parameters, by running the model each time
step           one iteration

Knows tensors and callables, no model, data or loop; imports torch alone. Source: "ComPO: Preference Alignment via
Comparison Oracles" (arXiv 2505.05465), called the paper here.
"""
