"""What `prefopt reproduce bpo` is made of; `run.py` says which file is which experiment."""
