"""Cambrian-style vision-centric multimodal language models.

Importing the package registers its classes with transformers' Auto classes.
"""

from transformers import AutoConfig, AutoModelForImageTextToText

from cambrian_model.config import CambrianConfig
from cambrian_model.model import CambrianForConditionalGeneration

AutoConfig.register(CambrianConfig.model_type, CambrianConfig)
AutoModelForImageTextToText.register(CambrianConfig, CambrianForConditionalGeneration)

__all__ = ["CambrianConfig", "CambrianForConditionalGeneration"]
