"""What `prefopt reproduce lpo` is made of; `run.py` says which file is which experiment."""
