"""What `prefopt reproduce compo` is made of; `run.py` says which file is which experiment."""
