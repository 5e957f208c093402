"""Connectors: visual features of several encoders to image tokens."""

from collections.abc import Callable

from cambrian_model.config import (
    CAbstractorConfig,
    CambrianConfig,
    LDPv2Config,
    ProjectorConfig,
    ResamplerConfig,
    SVAConfig,
)
from cambrian_model.connectors.base import Connected, Connector
from cambrian_model.connectors.c_abstractor import CAbstractorConnector
from cambrian_model.connectors.ldp_v2 import LDPv2Connector
from cambrian_model.connectors.mlp import MLPConnector
from cambrian_model.connectors.resampler import ResamplerConnector
from cambrian_model.connectors.sva import SVAConnector
from cambrian_model.connectors.visual_context import VisualContext

_CLASSES: dict[type, Callable[..., Connector]] = {
    SVAConfig: SVAConnector,
    ProjectorConfig: MLPConnector,
    ResamplerConfig: ResamplerConnector,
    CAbstractorConfig: CAbstractorConnector,
    LDPv2Config: LDPv2Connector,
}


def build_connector(config: CambrianConfig) -> Connector:
    """Builds the connector of a configuration, with fresh weights."""
    spec = config.connector_config
    return _CLASSES[type(spec)](config, spec)


__all__ = [
    "CAbstractorConnector",
    "Connected",
    "Connector",
    "LDPv2Connector",
    "MLPConnector",
    "ResamplerConnector",
    "SVAConnector",
    "VisualContext",
    "build_connector",
]
