"""What `prefopt reproduce ties` is made of; `run.py` says which file is which experiment."""
