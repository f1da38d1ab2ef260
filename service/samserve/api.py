"""Names of the API: its service and rpcs, the health services, and the metadata keys of calls."""

from samserve.v1 import segmentation_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["SegmentationService"]

SERVICE_NAME = _SERVICE.full_name
"""In paths of calls, in reflection, and as the health service that follows readiness."""

RPCS = _SERVICE.methods_by_name
"""Descriptors of the rpcs by name, with the types of their messages."""

LIVENESS_SERVICE_NAME = "liveness"
"""Health service that depends on nothing."""

TENANT_METADATA_KEY = "samserve-tenant"

IMAGE_ID_METADATA_KEY = "samserve-image-id"
"""Names the image that a call is about to whatever stands before the gateways, so that all its calls go to one of them,
whose memory has its embedding. A hint: gateways do not read it."""

REQUEST_ID_METADATA_KEY = "x-request-id"
