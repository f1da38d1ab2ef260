"""What operators see of a gateway: the record of each call, metrics, logs and traces."""
