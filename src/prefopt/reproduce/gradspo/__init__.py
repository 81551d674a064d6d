"""What `prefopt reproduce gradspo` is made of; `run.py` says which file is which experiment."""
