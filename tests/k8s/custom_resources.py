"""Schemas of the custom resources that the manifests use, closed: a field that is not here is refused.

They hold the part of each definition that is used, after the reference documentation: Prometheus Operator's
`monitoring.coreos.com/v1` (https://prometheus-operator.dev/docs/api-reference/api/) and KEDA's `keda.sh/v1alpha1`
(https://keda.sh/docs/latest/reference/scaledobject-spec/).
"""

from typing import Any

import jsonschema

from tests.k8s.manifests import Manifest

Schema = dict[str, Any]

STRING: Schema = {"type": "string", "minLength": 1}
DURATION: Schema = {
    "type": "string",
    "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
}
COUNT: Schema = {"type": "integer", "minimum": 0}
STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _resource(api_version: str, kind: str, spec: Schema) -> Schema:
    metadata = _object(("name", "namespace"), name=STRING, namespace=STRING, labels=STRINGS)
    return _object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata=metadata,
        spec=spec,
    )


_RULE = {
    **_object(
        ("expr",),
        alert=STRING,
        record=STRING,
        expr=STRING,
        labels=STRINGS,
        annotations=STRINGS,
        **{"for": DURATION, "keep_firing_for": DURATION},
    ),
    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
}
_SCALING = _object(
    stabilizationWindowSeconds={**COUNT, "maximum": 3600},
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    policies=_list(
        _object(
            ("type", "value", "periodSeconds"),
            type={"enum": ["Pods", "Percent"]},
            value=COUNT,
            periodSeconds={**COUNT, "maximum": 1800},
        )
    ),
)
_PROMETHEUS_TRIGGER = _object(
    ("type", "metadata"),
    type={"const": "prometheus"},
    name=STRING,
    metricType={"enum": ["AverageValue", "Value"]},
    # Its values are strings, numbers too.
    metadata=_object(
        ("serverAddress", "query", "threshold"),
        serverAddress={"type": "string", "pattern": "^https?://"},
        query=STRING,
        threshold={"type": "string", "pattern": r"^[0-9.]+$"},
        activationThreshold={"type": "string", "pattern": r"^[0-9.]+$"},
        ignoreNullValues={"enum": ["true", "false"]},
    ),
)

SCHEMAS: dict[str, Schema] = {
    "PodMonitor": _resource(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        _object(
            ("selector", "podMetricsEndpoints"),
            selector=_object(matchLabels=STRINGS),
            podMetricsEndpoints=_list(_object(("port",), port=STRING, path=STRING, interval=DURATION)),
        ),
    ),
    "PrometheusRule": _resource(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        _object(
            ("groups",),
            groups=_list(_object(("name", "rules"), name=STRING, interval=DURATION, rules=_list(_RULE))),
        ),
    ),
    "ScaledObject": _resource(
        "keda.sh/v1alpha1",
        "ScaledObject",
        _object(
            ("scaleTargetRef", "triggers"),
            scaleTargetRef=_object(("name",), apiVersion=STRING, kind=STRING, name=STRING),
            pollingInterval=COUNT,
            minReplicaCount=COUNT,
            maxReplicaCount=COUNT,
            fallback=_object(("failureThreshold", "replicas"), failureThreshold=COUNT, replicas=COUNT),
            advanced=_object(
                horizontalPodAutoscalerConfig=_object(behavior=_object(scaleUp=_SCALING, scaleDown=_SCALING))
            ),
            triggers=_list(_PROMETHEUS_TRIGGER),
        ),
    ),
}


def validate_custom(manifest: Manifest) -> None:
    """Check a custom resource. Raises ValidationError."""
    jsonschema.Draft202012Validator(SCHEMAS[manifest["kind"]]).validate(manifest)
