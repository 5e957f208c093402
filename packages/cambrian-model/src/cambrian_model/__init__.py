"""Cambrian-style vision-centric multimodal language models.

Importing the package registers its classes with transformers' Auto classes.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from cambrian_model.config import CambrianConfig
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing import CambrianImageProcessor, CambrianProcessor

AutoConfig.register(CambrianConfig.model_type, CambrianConfig)
AutoModelForImageTextToText.register(CambrianConfig, CambrianForConditionalGeneration)
AutoImageProcessor.register(
    CambrianConfig, image_processor_classes={"pil": CambrianImageProcessor, "torchvision": CambrianImageProcessor}
)
AutoProcessor.register(CambrianConfig, CambrianProcessor)

__all__ = ["CambrianConfig", "CambrianForConditionalGeneration", "CambrianImageProcessor", "CambrianProcessor"]
