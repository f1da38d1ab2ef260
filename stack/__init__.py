"""All of samserve on one machine, without a container: Redis, Triton, gateways, Envoy and Prometheus on loopback.

python -m stack [--help]    runs it until Ctrl-C; docs/stack.md
"""
