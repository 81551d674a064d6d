"""Where comparisons come from.

files      containers: JSON lines, JSON, CSV, parquet, folders, hub ids -> rows
rows       rows -> examples, dropped rows and a report
ties       what ties mean to a method that has no term for them
unpaired   pairs -> single labelled samples
encoding   examples -> token ids, lengths in tokens, what truncation did
mining     scored or ranked candidates -> rows
"""
