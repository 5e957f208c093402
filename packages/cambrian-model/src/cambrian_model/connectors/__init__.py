"""Connectors: visual features of several encoders to image tokens."""

from collections.abc import Callable

from cambrian_model.config import CambrianConfig, ProjectorConfig, SVAConfig
from cambrian_model.connectors.base import Connected, Connector
from cambrian_model.connectors.mlp import MLPConnector
from cambrian_model.connectors.sva import SVAConnector
from cambrian_model.connectors.visual_context import VisualContext

_CLASSES: dict[type, Callable[..., Connector]] = {SVAConfig: SVAConnector, ProjectorConfig: MLPConnector}


def build_connector(config: CambrianConfig) -> Connector:
    """Builds the connector of a configuration, with fresh weights."""
    spec = config.connector_config
    return _CLASSES[type(spec)](config, spec)


__all__ = ["Connected", "Connector", "MLPConnector", "SVAConnector", "VisualContext", "build_connector"]
