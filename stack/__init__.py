"""Run all components of samserve on one machine without containers: Redis, Triton, gateways, Envoy and Prometheus.

python -m stack [--help]    runs it until Ctrl-C; docs/stack.md
"""
