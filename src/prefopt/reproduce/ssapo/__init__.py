"""What `prefopt reproduce ssapo` is made of; `run.py` says which file is which experiment."""
