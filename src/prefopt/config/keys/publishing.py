"""Uploading the trained model to the Hugging Face Hub."""

from __future__ import annotations

from pydantic import Field

from prefopt.config.keys.base import Keys


class PublishingKeys(Keys):
    """Keys of the upload behind a run; of every run."""

    push_to_hub: bool = Field(
        False,
        description="when the run has finished, upload model/ and the model card to the Hugging Face Hub",
    )
    hub_model_id: str | None = Field(
        None,
        description="where to: owner/name; None: the name of the run's folder, under the token's account",
    )
    hub_private_repo: bool = Field(
        False,
        description="a private repository; false: public, unless the owner's repositories are private by default",
    )
