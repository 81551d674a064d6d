"""Pairs of pictures under one control image, for image_dpo.yaml: best and worst of three samples of the scene world's model."""

from pathlib import Path

from datasets import Dataset

from prefopt.worlds import get_world

FILE = Path("runs/control/pairs.parquet")

if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(get_world("scene").pairs(512)).to_parquet(FILE)
    print(f"wrote {FILE}")
