"""Where comparisons come from.

files      containers: JSON lines, JSON, CSV, parquet (`readers`), folders, hub ids -> rows
collecting rows -> examples, dropped rows; what a row holds is its modality's business
ties       what ties mean to a method that has no term for them
unpaired   pairs -> single labelled samples
mining     scored or ranked candidates -> rows
feeds      the examples of each step: a data set in a counted order (`schedule`), or rounds of `online` collecting
"""
