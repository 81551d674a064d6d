"""Where comparisons come from.

files      containers: JSON lines, JSON, CSV, parquet (`readers`), folders, hub ids -> rows
rows       rows of texts -> examples, dropped rows and a report (`collecting`: what is alike for every modality)
image_rows the same for images, and lists of prompts (`images`: one image; `image_report`)
ties       what ties mean to a method that has no term for them
unpaired   pairs -> single labelled samples
encoding   examples -> token ids, lengths in tokens, what truncation did
mining     scored or ranked candidates -> rows
"""
